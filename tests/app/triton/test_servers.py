"""The choice of a Triton for each request, and retries."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc.aio import Metadata

from app.context import Deadline
from app.errors import (
    BackendError,
    BackendUnavailableError,
    DeadlineExceededError,
    GatewayError,
    ModelNotReadyError,
    OverloadedError,
)
from app.memory import Budget
from app.scheduling.admission import Admission
from app.scheduling.coalescing import Coalescer
from app.settings import Settings
from app.tasks import sentiment
from app.telemetry.metrics import Metrics
from app.triton.catalog import Catalog
from app.triton.client import TritonClient
from app.triton.question import LATE_S, Answer, Question
from app.triton.served import ServedModel
from app.triton.servers import MAX_SAVED_RETRIES, Servers

MODEL = ServedModel("m", sentiment.TASK, ("1",), True, 1, ())


class Scripted(TritonClient):
    """A Triton that fails as scripted."""

    failure: GatewayError | None = None
    calls = 0

    async def infer(self, *_: object, **__: object) -> Answer:  # type: ignore[override]
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return Answer(self.address, {})


def servers(count: int) -> Any:
    """Return several scripted servers that serve the model."""
    made = Servers(tuple(f"s{number}:1" for number in range(count)), Metrics())
    made.clients = [Scripted(client.address, Metrics()) for client in made.clients]
    for client in made.clients:
        client.models = {"m": MODEL}
        client.mark_reachable(True)
    return made


def about(left_s: float = 5) -> Question:
    """Return a question to the model."""
    return Question(MODEL, None, (b"a",), {}, "id", "", Deadline.after(left_s))


def ask(made: Any, left_s: float = 5) -> Answer:
    """Send one inference."""
    return asyncio.run(made.infer(about(left_s)))


@pytest.mark.parametrize("failure", [BackendUnavailableError("gone"), ModelNotReadyError("dead step")])
def test_a_request_is_tried_on_another_server(failure: GatewayError) -> None:
    made = servers(2)
    made.clients[0].failure = failure
    assert {ask(made).version for _ in range(4)} == {"s1:1"}


def test_a_broken_connection_is_tried_again_on_the_same_server() -> None:
    made = servers(1)
    made.clients[0].failure = BackendUnavailableError("broken")
    with pytest.raises(BackendUnavailableError):
        ask(made)
    assert made.clients[0].calls == 2


@pytest.mark.parametrize(
    "failure",
    [DeadlineExceededError("late"), OverloadedError("full"), BackendError("raised"), ModelNotReadyError("alone")],
)
def test_only_broken_connections_and_absent_models_are_retried(failure: GatewayError) -> None:
    """No retry after a deadline, a refusal or a step's failure, or if no other server has the model."""
    made = servers(1 if isinstance(failure, ModelNotReadyError) else 2)
    for client in made.clients:
        client.failure = failure
    with pytest.raises(type(failure)):
        ask(made)
    assert sum(client.calls for client in made.clients) == 1


def test_nothing_is_tried_again_after_the_deadline() -> None:
    made = servers(2)
    made.clients[0].failure = made.clients[1].failure = BackendUnavailableError("gone")
    with pytest.raises(BackendUnavailableError):
        ask(made, 0)
    assert sum(client.calls for client in made.clients) == 1


def test_an_outage_adds_a_tenth_of_the_load_at_most() -> None:
    """A few retries are saved for accidents; afterwards every tenth request may be retried."""
    made = servers(2)
    for client in made.clients:
        client.failure = BackendUnavailableError("gone")
    for _ in range(200):
        with pytest.raises(BackendUnavailableError):
            ask(made)
    assert 200 + 15 <= sum(client.calls for client in made.clients) <= 200 + 21 + MAX_SAVED_RETRIES


def test_the_least_loaded_server_is_chosen() -> None:
    """Latency times calls under way; unknown servers come first, so that they are measured."""
    made = servers(3)
    slow, fast, new = made.clients
    slow._latencies["m"], fast._latencies["m"] = 0.2, 0.01
    assert made.choose("m") is new
    new._latencies["m"] = 10.0
    assert made.choose("m") is fast
    fast.outstanding = 30
    assert made.choose("m") is slow


def test_a_server_that_has_become_slow_is_noticed_before_it_answers() -> None:
    made = servers(2)
    stuck, other = made.clients
    stuck._latencies["m"], other._latencies["m"] = 0.01, 0.05
    assert made.choose("m") is stuck
    stuck._running["m"][object()] = time.perf_counter() - 1
    assert made.choose("m") is other


@pytest.mark.parametrize("trouble", ["unreachable", "unfit"])
def test_a_server_in_trouble_is_asked_only_when_there_is_no_other(trouble: str) -> None:
    made = servers(2)
    for number, client in enumerate(made.clients):
        if trouble == "unreachable":
            client.mark_reachable(False)
        else:
            client.mark_unfit("m", "its canary fails")
        assert {made.choose("m") for _ in range(4)} == ({made.clients[1]} if number == 0 else set(made.clients))


def test_servers_may_serve_different_models_and_versions() -> None:
    """A request goes to a server with its model and version; a model that does not fit its task gets none."""
    made = servers(3)
    first, second, third = made.clients
    second.models = {"m": ServedModel("m", sentiment.TASK, ("1", "2"), True, 1, ())}
    third.models = {"m": ServedModel("m", sentiment.TASK, ("1",), True, 1, (), fault="other tensors")}
    assert made.serving("m") == [first, second]
    assert made.serving("m", "2") == [second]
    assert made.choose("other") is None

    async def merged() -> Catalog:
        catalog = Catalog(made)
        catalog._merge()
        return catalog

    catalog = asyncio.run(merged())
    assert catalog.get("m").versions == ("1", "2")
    assert not catalog.get("m").fault


def test_a_server_that_fails_fast_does_not_draw_the_requests() -> None:
    """A failure counts as a slow call; the third in a row makes the model unfit until its canary answers."""
    made = servers(2)
    broken, good = made.clients
    broken._latencies["m"], good._latencies["m"] = 0.001, 0.05
    error = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), "it raised")
    broken._note(about(), 0.0, error)
    assert made.choose("m") is good
    for _ in range(2):
        broken._note(about(), 0.0, error)
    assert "m" in broken.unfit
    broken.forget(())
    assert not broken.unfit


def test_a_failed_batch_counts_against_a_server_once_its_items_fail_alone() -> None:
    """Another caller's item may have failed the batch, so only a call that was sent again proves the server wrong."""
    (client,) = servers(1).clients
    question = replace(about(), model=replace(MODEL, max_batch_size=8))
    error = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), "onnx runtime error 2: bad index")
    for _ in range(9):
        assert question.may_suffer(client._note(question, 0.0, error))
    assert not client.unfit
    resent = replace(question, resent=True)
    for _ in range(3):
        assert not resent.may_suffer(client._note(resent, 0.0, error))
    assert "m" in client.unfit


def test_a_caller_cannot_make_a_step_look_dead() -> None:
    """A refusal may quote the caller's input; only INTERNAL proves that a process has died."""
    (client,) = servers(1).clients
    text = "invalid_parameter@postprocess: classes names 'is not healthy', which this model does not know."

    async def note(code: grpc.StatusCode) -> None:
        client._note(about(), 0.0, grpc.aio.AioRpcError(code, Metadata(), Metadata(), text))

    asyncio.run(note(grpc.StatusCode.INVALID_ARGUMENT))
    assert not client.dead_steps
    assert not client.unfit
    asyncio.run(note(grpc.StatusCode.INTERNAL))
    assert client.dead_steps


@pytest.mark.parametrize(
    ("version", "cancels"), [("2.51.0", False), ("2.58.1", False), ("2.59.0", True), ("3.0", True)]
)
def test_calls_are_cancelled_where_that_does_no_harm(version: str, cancels: bool) -> None:
    """On older servers the call runs on after its caller left; its deadline is never below 50 ms."""

    async def test() -> None:
        made = Servers(("nowhere:1",), Metrics())
        (client,) = made.clients
        client.models, seen = {"m": MODEL}, []

        async def metadata(*_: object, **__: object) -> Any:
            return SimpleNamespace(version=version)

        async def infer(*_: object, timeout: float, **__: object) -> Any:
            seen.append(timeout)
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise
            seen.append("ended")

        client._stub = SimpleNamespace(ServerMetadata=metadata, ModelInfer=infer)
        await client.read_version()
        assert client.cancels is cancels
        coalescer = Coalescer(made, Budget(1000))
        admission = Admission(9, 9, Metrics())
        slot = await admission.enter(about())
        with pytest.raises(DeadlineExceededError):
            await coalescer.send(about(0.01), slot)
        await asyncio.sleep(0.3)
        # In truth gRPC ends it at that deadline, which Triton bears or hardly ever meets.
        assert seen == [0.05 if cancels else 0.05 + LATE_S, "ended"]
        seen.clear()
        question = about()
        slot = await admission.enter(question)
        caller = asyncio.create_task(coalescer.send(question, slot))
        await asyncio.sleep(0.01)
        caller.cancel()
        await asyncio.sleep(0.3)
        assert seen == [pytest.approx(5 if cancels else 5 + LATE_S, abs=0.5), "cancelled" if cancels else "ended"]

    asyncio.run(test())


def test_a_name_in_dns_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers come and go with its addresses; a lookup that fails once changes nothing."""
    found: list[str] = ["10.0.0.1", "10.0.0.2"]

    async def test() -> None:
        async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
            assert (host, port) == ("triton", 8001)
            if not found:
                raise socket.gaierror("not now")
            return [(socket.AF_INET, None, None, "", (address, port)) for address in found]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        made = Servers(("dns:///triton:8001",), Metrics())
        await made.open()
        kept = made.clients[1]
        assert [client.address for client in made.clients] == ["10.0.0.1:8001", "10.0.0.2:8001"]
        found[:] = ["10.0.0.2", "10.0.0.3"]
        await made._resolve()
        assert len(made.clients) == 3, "those that are known to serve stay until others are"
        kept.models = {"m": MODEL}
        await made._resolve()
        assert [client.address for client in made.clients] == ["10.0.0.2:8001", "10.0.0.3:8001"]
        assert made.clients[0] is kept
        found.clear()
        await made._resolve()
        assert len(made.clients) == 2
        await asyncio.sleep(0.05)
        await made.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ("a:1", ("a:1",)),
        ("a:1, b.example:2,[::1]:3", ("a:1", "b.example:2", "[::1]:3")),
        ("dns:///triton:8001", ("dns:///triton:8001",)),
    ],
)
def test_addresses_are_a_list_or_a_name(
    monkeypatch: pytest.MonkeyPatch, given: str, addresses: tuple[str, ...]
) -> None:
    monkeypatch.setenv("GATEWAY_TRITON_URLS", given)
    assert Settings().triton_addresses == addresses


@pytest.mark.parametrize("given", ["http://a:1", "a", "a:b", "dns:///a:1,b:2", "a:1;b:2"])
def test_invalid_addresses_are_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("GATEWAY_TRITON_URLS", given)
    with pytest.raises(ValueError, match=r"host:port|must be the only"):
        Settings()
