"""When a call is retried and when it is given up, against a scripted gateway."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.client.conftest import Client
from tests.standins.gateway import SENTIMENT, Script, describe, overloaded, problem, result
from triton_gateway_client import (
    AccessDeniedError,
    Batches,
    ConnectionFailedError,
    DeadlineExceededError,
    GatewayError,
    InvalidInputError,
    OverloadedError,
    UnavailableError,
)
from triton_gateway_client.errors import seconds_of
from triton_gateway_client.exchange import FIRST_PAUSE_S, LONGEST_PAUSE_S, Deadline, Patience

Make = Callable[..., Script]


def test_refusals_are_retried_after_retry_after(script: Make) -> None:
    """After a 429 and its Retry-After the same request goes out, with the same id and the remaining time."""
    gateway = script(overloaded("1"), result())
    begun = time.monotonic()
    assert gateway("sentiment", "fine", timeout=20).label == "positive"
    assert time.monotonic() - begun >= 1
    first, second = gateway.asked
    assert first.headers["X-Request-ID"] == second.headers["X-Request-ID"]
    assert first.content == second.content
    left = [int(request.headers["X-Request-Timeout-Ms"]) for request in gateway.asked]
    assert 0 < left[1] <= left[0] - 1000 <= 19_000


def test_no_pause_ends_after_the_deadline(script: Make) -> None:
    """A Retry-After beyond the deadline is not waited for: the refusal is raised at once, with that time."""
    gateway = script(overloaded("30"))
    begun = time.monotonic()
    with pytest.raises(OverloadedError) as caught:
        gateway("sentiment", "fine", timeout=20)
    assert time.monotonic() - begun < 20
    assert (caught.value.retry_after, caught.value.status, caught.value.retryable) == (30, 429, True)


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (lambda: problem(503, "model_not_ready", retryable=True, retry_after="0"), UnavailableError),
        (lambda: httpx.Response(503, text="<html>", headers={"Retry-After": "0"}), UnavailableError),
        (lambda: overloaded("0"), OverloadedError),
        (lambda: httpx.ConnectError("refused"), ConnectionFailedError),
        (lambda: httpx.ConnectTimeout("slow"), ConnectionFailedError),
        (lambda: httpx.RemoteProtocolError("cut"), ConnectionFailedError),
    ],
    ids=["503", "503 of a proxy", "429", "refused", "connects slowly", "cut"],
)
def test_retries_are_counted(script: Make, answer: Callable[[], Any], raised: type[GatewayError]) -> None:
    """A retryable failure is retried `retries` times, then raised; a success is returned."""
    gateway = script(*(answer() for _ in range(3)))
    with pytest.raises(raised):
        gateway("sentiment", "fine", options={"retries": 2})
    assert len(gateway.asked) == 3
    assert script(answer(), result())("sentiment", "fine").label == "positive"


@pytest.mark.parametrize(
    ("answer", "raised", "code"),
    [
        (problem(422, "text_empty", retryable=False), InvalidInputError, "text_empty"),
        (problem(401, "unauthenticated", retryable=False), AccessDeniedError, "unauthenticated"),
        (problem(504, "deadline_exceeded", retryable=True), DeadlineExceededError, "deadline_exceeded"),
        (problem(502, "backend_error", retryable=False), GatewayError, "backend_error"),
        (httpx.Response(200, text="[]"), GatewayError, "unexpected_answer"),
        (httpx.Response(307, headers={"Location": "/"}), GatewayError, "unexpected_answer"),
        (httpx.LocalProtocolError("header"), ConnectionFailedError, "connection_failed"),
        (httpx.UnsupportedProtocol("scheme"), ConnectionFailedError, "connection_failed"),
        (httpx.TooManyRedirects("loop"), ConnectionFailedError, "connection_failed"),
        (httpx.DecodingError("gzip"), ConnectionFailedError, "connection_failed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_lasting_failures_are_not_retried(
    script: Make, answer: httpx.Response | Exception, raised: type[GatewayError], code: str
) -> None:
    """One request, and the error gives the reason."""
    gateway = script(answer)
    with pytest.raises(raised) as caught:
        gateway("sentiment", "fine")
    assert (len(gateway.asked), caught.value.code) == (1, code)


def _kinds(kind: type[httpx.RequestError]) -> Iterator[type[httpx.RequestError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _kinds(each)


@pytest.mark.parametrize("kind", sorted(_kinds(httpx.RequestError), key=lambda kind: kind.__name__))
def test_every_failure_of_httpx_has_a_counterpart(script: Make, kind: type[httpx.RequestError]) -> None:
    """The caller sees httpx's errors only as the cause of the client's own."""
    with pytest.raises(ConnectionFailedError if not _is_timeout(kind) else DeadlineExceededError) as caught:
        script(kind("broken"))("sentiment", "fine", options={"retries": 0})
    assert isinstance(caught.value.__cause__, kind)


def _is_timeout(kind: type[httpx.RequestError]) -> bool:
    return issubclass(kind, httpx.TimeoutException) and not issubclass(kind, httpx.ConnectTimeout)


def test_pauses_grow_and_never_pass_the_deadline() -> None:
    """Without Retry-After pauses double, varying by half at most; there is none beyond the deadline."""
    now = 0.0
    deadline = Deadline(1000, lambda: now)
    error = ConnectionFailedError("", retryable=True)
    for chance, share in ((0.0, 0.5), (1.0, 1.5)):
        patience = Patience(8, deadline, lambda chance=chance: chance)
        pauses = [patience.pause(error) for _ in range(9)]
        means = [min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**n) for n in range(8)]
        assert pauses == [pytest.approx(share * mean) for mean in means] + [None]
    now = 999.95
    assert Patience(8, deadline, lambda: 0.0).pause(error) is None
    assert Patience(8, deadline).pause(InvalidInputError("", retryable=False)) is None


def test_retry_after_may_be_a_date() -> None:
    """Proxies send dates; any other text is ignored."""
    assert seconds_of("7") == 7
    assert 3000 < (seconds_of(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3600))) or 0) <= 3600
    assert seconds_of("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    assert [seconds_of(value) for value in (None, "soon", "nan", "inf")] == [None] * 4


def test_key_and_address_are_used(script: Make) -> None:
    """The key is sent as a bearer token, a path in the address is kept, the result has the server's timing."""
    gateway = script(result())
    answer = gateway("sentiment", "fine", request_id="mine", model="m", version=2, options={"api_key": "secret"})
    (asked,) = gateway.asked
    assert asked.headers["Authorization"] == "Bearer secret"
    assert asked.headers["X-Request-ID"] == "mine"
    assert (asked.url.path, dict(asked.url.params)) == ("/v1/sentiment", {"model": "m", "version": "2"})
    assert answer.timing == {"read": 0.1, "triton": 2.5}


@pytest.mark.parametrize(
    ("options", "arguments", "raised"),
    [
        ({}, {"timeout": 0}, ValueError),
        ({}, {"timeout": float("nan")}, ValueError),
        ({}, {"request_id": "two words"}, ValueError),
        ({}, {"request_id": "x" * 129}, ValueError),
    ],
)
def test_wrong_arguments_are_the_callers_mistake(
    script: Make, options: dict[str, Any], arguments: dict[str, Any], raised: type[Exception]
) -> None:
    """They are refused before anything is sent."""
    gateway = script()
    with pytest.raises(raised):
        gateway("sentiment", "fine", options=options, **arguments)
    assert gateway.asked == []


def test_an_address_needs_its_scheme(client: Client) -> None:
    """An address without a scheme is refused when the client is made."""
    with pytest.raises(ValueError, match="base_url"):
        client("127.0.0.1:8080", "ready")


@pytest.mark.parametrize("key", ["schlüssel", "line\n", "two words", ""])
def test_a_key_must_fit_into_a_header(client: Client, key: str) -> None:
    """Any other key is refused when the client is made, and not shown."""
    with pytest.raises(ValueError, match=r"^api_key must be visible ASCII characters, without spaces$"):
        client("http://127.0.0.1:8080", "ready", options={"api_key": key})


def answer_texts(request: httpx.Request, failing: dict[str, dict[str, Any]] | None = None) -> httpx.Response:
    """Answer a batch: each text's own label, or its problem."""
    texts = json.loads(request.content)["texts"]
    problems = failing or {}
    rows = [
        {"index": index, "error": problems[text]} if text in problems else {"index": index, **SENTIMENT, "label": text}
        for index, text in enumerate(texts)
    ]
    return httpx.Response(200, json={"results": rows, "failed": len(problems)})


def texts_of(gateway: Script) -> list[list[str]]:
    """Return the texts of each request that was sent."""
    return [json.loads(request.content)["texts"] for request in gateway.asked]


def told(outcomes: list[Any]) -> list[str]:
    """Return the label or the code of each outcome."""
    return [outcome.code if isinstance(outcome, GatewayError) else outcome.label for outcome in outcomes]


def test_only_failed_items_are_sent_again(script: Make) -> None:
    """Only retryable items of a batch are sent again; other failures stay in their places."""
    busy = describe(503, "backend_unavailable", retryable=True)
    wrong = describe(422, "text_empty", retryable=False)
    gateway = script(
        lambda request: answer_texts(request, {"b": busy, "c": wrong, "d": busy}),
        lambda request: answer_texts(request, {"d": busy}),
        answer_texts,
    )
    assert told(gateway("sentiment_many", list("abcd"))) == ["a", "b", "text_empty", "d"]
    assert texts_of(gateway) == [list("abcd"), list("bd"), ["d"]]
    assert len({request.headers["X-Request-ID"] for request in gateway.asked}) == 1


@pytest.mark.parametrize(
    "answer",
    [
        problem(408, "request_body_timeout", retryable=True),
        problem(504, "deadline_exceeded", retryable=True),
        httpx.Response(502, text="<html>"),
        httpx.Response(504, text="<html>"),
    ],
    ids=["408", "504", "502 of a proxy", "504 of a proxy"],
)
def test_batches_are_retried_by_the_rule_of_single_requests(script: Make, answer: httpx.Response) -> None:
    """After 408, 502 and 504 neither a single request nor a batch is retried, though the error is `retryable`."""
    alone = script(answer)
    with pytest.raises(GatewayError) as caught:
        alone("sentiment", "fine")
    assert caught.value.retryable
    batch = script(answer)
    outcomes = batch("sentiment_many", "ab")
    assert told(outcomes) == [caught.value.code] * 2
    assert (len(alone.asked), len(batch.asked)) == (1, 1)


def test_items_are_retried_by_the_rule_of_single_requests(script: Make) -> None:
    """Of a batch's failed items only those are sent again that would be retried as single requests."""
    late = describe(504, "deadline_exceeded", retryable=True)
    busy = describe(503, "backend_unavailable", retryable=True)
    gateway = script(lambda request: answer_texts(request, {"a": late, "b": busy}), answer_texts)
    assert told(gateway("sentiment_many", "abc")) == ["deadline_exceeded", "b", "c"]
    assert texts_of(gateway) == [list("abc"), ["b"]]


def test_refused_batch_is_sent_again_as_a_whole(script: Make) -> None:
    """A problem of the whole batch counts for every item: retryable ones are retried, lasting ones returned."""
    gateway = script(overloaded("0"), answer_texts)
    assert told(gateway("sentiment_many", "ab")) == ["a", "b"]
    gateway = script(problem(404, "model_not_found", retryable=False))
    assert told(gateway("sentiment_many", "ab", model="x")) == ["model_not_found"] * 2


def test_batches_are_split_by_count_and_by_bytes(script: Make) -> None:
    """No batch exceeds the limits of items and bytes; a single larger item goes alone."""
    one = {"options": {"batches": Batches(max_items=2, max_bytes=2000, at_once=1)}}
    texts = ["a", "b", "c", "x" * 3000, "d", "y" * 1200, "z" * 1200]
    gateway = script(*[answer_texts] * 5)
    assert told(gateway("sentiment_many", texts, **one)) == texts
    assert texts_of(gateway) == [["a", "b"], ["c"], ["x" * 3000], ["d", "y" * 1200], ["z" * 1200]]


def test_each_half_has_the_tries_of_a_batch(script: Make) -> None:
    """After a split, each half has the retries of a batch, less those used before the split."""
    busy = describe(503, "backend_unavailable", retryable=True)
    large = problem(413, "batch_too_large", retryable=False)

    def failing(request: httpx.Request) -> httpx.Response:
        return answer_texts(request, dict.fromkeys(json.loads(request.content)["texts"], busy))

    options = {"options": {"retries": 2}}
    gateway = script(large, *[failing] * 6)
    assert told(gateway("sentiment_many", "ab", **options)) == ["backend_unavailable"] * 2
    assert texts_of(gateway) == [["a", "b"], *[["a"]] * 3, *[["b"]] * 3]
    gateway = script(overloaded("0"), large, *[failing] * 4)
    assert told(gateway("sentiment_many", "ab", **options)) == ["backend_unavailable"] * 2
    assert texts_of(gateway) == [*[["a", "b"]] * 2, *[["a"]] * 2, *[["b"]] * 2]


@pytest.mark.parametrize("code", ["batch_too_large", "body_too_large"])
def test_smaller_limits_of_a_gateway_are_learnt(script: Make, code: str) -> None:
    """A batch too large for the gateway is halved, and later batches are smaller from the start."""
    texts = [f"text {n}" for n in range(10)]

    def strict(request: httpx.Request) -> httpx.Response:
        if len(json.loads(request.content)["texts"]) > 2:
            return problem(413, code, retryable=False)
        return answer_texts(request)

    gateway = script(*[strict] * 9)
    outcomes = gateway("sentiment_many", texts, options={"batches": Batches(max_items=4, at_once=1)})
    assert told(outcomes) == texts
    assert [len(asked) for asked in texts_of(gateway)] == [4, 2, 2, 2, 2, 2]
    lone = script(problem(413, code, retryable=False))
    assert told(lone("sentiment_many", ["large"])) == [code]


def test_order_is_kept_whatever_is_answered_first(script: Make) -> None:
    """Batches run in parallel, and their results have the order of the items."""
    first = threading.Event()

    def slow_at_first(request: httpx.Request) -> httpx.Response:
        texts = json.loads(request.content)["texts"]
        if texts[0] == "0":
            first.wait(0.5)
        elif texts[0] == "9":
            first.set()
        return answer_texts(request)

    gateway = script(*[slow_at_first] * 10)
    texts = [str(n) for n in range(10)]
    outcomes = gateway("sentiment_many", texts, options={"batches": Batches(max_items=1, at_once=3)})
    assert told(outcomes) == texts


def test_items_past_the_deadline_say_so(script: Make) -> None:
    """`timeout` covers all batches: items without time left are never sent, and their outcome says so."""

    def slow(request: httpx.Request) -> httpx.Response:
        time.sleep(int(request.headers["X-Request-Timeout-Ms"]) / 1000 + 0.1)  # all that is left, and a little
        return answer_texts(request)

    gateway = script(slow, slow)
    options = {"batches": Batches(max_items=1, at_once=1), "retries": 0}
    outcomes = gateway("sentiment_many", ["a", "b", "c"], timeout=2, options=options)
    assert told(outcomes)[1:] == ["deadline_exceeded"] * 2
    assert len(gateway.asked) == 1


def test_unreadable_answers_fail_their_items_only(script: Make) -> None:
    """Missing or invalid rows do not break the call."""
    row = {"index": 0, **SENTIMENT}
    for rows in ([], [row], [row, {"index": 1, "label": 3}], [row, {"label": "no index"}]):
        gateway = script(httpx.Response(200, json={"results": rows, "failed": 0}))
        assert told(gateway("sentiment_many", ["a", "b"])) == ["unexpected_answer"] * 2


def test_wrong_items_end_the_call(script: Make) -> None:
    """An item of an unsupported type is the caller's mistake, and nothing more is sent."""
    gateway = script(answer_texts)
    options = {"batches": Batches(max_items=1, at_once=1)}
    with pytest.raises(TypeError, match="not int"):
        gateway("sentiment_many", ["a", 3, "b"], options=options)
    assert texts_of(gateway) in ([], [["a"]])


def test_nothing_is_sent_for_no_items(script: Make) -> None:
    """No items give no outcomes; missing files are reported in their places."""
    gateway = script()
    assert gateway("classify_many", []) == []
    assert told(gateway("classify_many", ["/does/not/exist.jpg"])) == ["image_unreadable"]
    assert gateway.asked == []


def test_waiting_until_ready_gives_the_last_reason(script: Make) -> None:
    """A wait in vain ends with the last reason; a gateway that becomes ready ends the wait."""
    health = {"model": "m", "task": "t", "ready": False, "reason": "It is loading."}
    red = httpx.Response(503, json={"status": "not_ready", "models": [health]})
    green = httpx.Response(200, json={"status": "ready", "models": [{**health, "ready": True}]})
    gateway = script(httpx.ConnectError("refused"), red, green)
    assert gateway("wait_until_ready", 30).ready
    with pytest.raises(DeadlineExceededError, match=r"m: It is loading\."):
        script(*[red] * 9)("wait_until_ready", 0.5)
    assert script(red)("ready") is False
    assert script(httpx.ConnectError("refused"))("ready") is False
    assert script(red)("health").models[0].reason == "It is loading."
