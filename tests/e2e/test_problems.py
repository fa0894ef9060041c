"""Every problem code, provoked through real HTTP."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest
from PIL import Image

Checks = Callable[[httpx.Response, int, str], dict[str, Any]]


@pytest.fixture(scope="module")
def schema(stack: Any) -> dict[str, Any]:
    """Return the OpenAPI document."""
    with stack.client() as http:
        document: dict[str, Any] = http.get("/openapi.json").json()
    return document


@pytest.fixture
def is_problem(schema: dict[str, Any]) -> Checks:
    """Return a check of one problem answer, against the example of its code in the OpenAPI document."""

    def check(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
        body: dict[str, Any] = response.json()
        assert (response.status_code, body["code"]) == (status, code), response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert body["request_id"] == response.headers["X-Request-ID"]
        same_as_documented(body, schema)
        assert ("Retry-After" in response.headers) == (status in (429, 503))
        return body

    return check


def same_as_documented(body: dict[str, Any], schema: dict[str, Any]) -> None:
    """Compare a problem with the example of its code, and check that it shows no path or traceback."""
    responses = schema["paths"]["/v1/classify/batch"]["post"]["responses"]
    responses = responses | schema["paths"]["/v1/sentiment"]["post"]["responses"]
    examples = responses.get(str(body["status"]), {}).get("content", {}).get("application/problem+json", {})
    example = examples.get("examples", {}).get(body["code"], {}).get("value")
    if example is not None:
        for name in ("type", "title", "status", "code", "retryable"):
            assert body[name] == example[name]
    assert set(body) <= set(schema["components"]["schemas"]["Problem"]["properties"])
    assert "Traceback" not in json.dumps(body)
    assert ".py" not in json.dumps(body)


def png(width: int, height: int) -> bytes:
    """Return a tiny PNG file that claims to be of this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def say(http: httpx.Client, text: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
    """Send the misbehaving model a command."""
    params = {"model": "misbehaving", **query}
    return http.post("/v1/sentiment", params=params, json={"text": text}, headers=headers)


@pytest.mark.parametrize(
    ("path", "request_", "status", "code"),
    [
        ("/v1/sentiment", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "malformed_request"),
        ("/v1/sentiment", {"json": {"text": 5}}, 400, "malformed_request"),
        ("/v1/sentiment", {"json": {"text": "a", "more": 1}}, 400, "malformed_request"),
        ("/v1/sentiment", {"json": ["a"]}, 400, "malformed_request"),
        ("/v1/sentiment", {"content": b'{"text": "\\ud800"}', "headers": {"Content-Type": "application/json"}}, 400,
         "malformed_request"),
        ("/v1/sentiment/batch", {"json": {"texts": []}}, 400, "malformed_request"),
        ("/v1/classify", {"json": {"image": "not base64!"}}, 400, "malformed_request"),
        ("/v1/classify", {"files": {"picture": ("a", b"a")}}, 400, "malformed_request"),
        ("/v1/classify", {"data": {"image": "text"}, "files": {"x": ("a", b"a")}}, 400, "malformed_request"),
        ("/v1/classify", {"content": b"--", "headers": {"Content-Type": "multipart/form-data"}}, 400,
         "malformed_request"),
        ("/nowhere", {"json": {}}, 404, "not_found"),
        ("/v1/sentiment?model=nobody", {"json": {"text": "a"}}, 404, "model_not_found"),
        ("/v1/sentiment?model=lite_detector", {"json": {"text": "a"}}, 404, "model_not_found"),
        ("/v1/sentiment?version=7", {"json": {"text": "a"}}, 404, "version_not_found"),
        ("/v1/models", {"json": {}}, 405, "method_not_allowed"),
        ("/v1/sentiment", {"json": {"text": "a"}, "headers": {"Accept": "text/html"}}, 406, "not_acceptable"),
        ("/v1/classify", {"content": bytes(20_000_001), "headers": {"Content-Type": "image/png"}}, 413,
         "body_too_large"),
        ("/v1/classify", {"content": iter([bytes(1_000_000)] * 25), "headers": {"Content-Type": "image/png"}}, 413,
         "body_too_large"),
        ("/v1/classify", {"files": {"image": ("a", bytes(20_100_000))}}, 413, "body_too_large"),
        ("/v1/classify", {"files": {"image": ("a", png(65_536, 65_536))}}, 413, "image_too_large"),
        ("/v1/sentiment/batch", {"json": {"texts": ["a"] * 65}}, 413, "batch_too_large"),
        ("/v1/classify/batch", {"files": [("images", ("a", b"a"))] * 65}, 413, "batch_too_large"),
        ("/v1/classify", {"content": b"a", "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
        ("/v1/classify", {"content": b"a"}, 415, "unsupported_media_type"),
        ("/v1/classify", {"content": b"a", "headers": {"Content-Type": "image/png", "Content-Encoding": "gzip"}}, 415,
         "unsupported_media_type"),
        ("/v1/sentiment", {"content": b"a", "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
        ("/v1/sentiment?topk=3", {"json": {"text": "a"}}, 422, "invalid_parameter"),
        ("/v1/classify?top_k=0", {"content": b"a", "headers": {"Content-Type": "image/png"}}, 422, "invalid_parameter"),
        ("/v1/sentiment?version=one", {"json": {"text": "a"}}, 422, "invalid_parameter"),
        ("/v1/sentiment", {"json": {"text": "a"}, "headers": {"X-Request-Timeout-Ms": "soon"}}, 422,
         "invalid_parameter"),
        ("/v1/classify", {"json": {"image_url": "http://127.0.0.1/a.png"}}, 422, "invalid_parameter"),
        ("/v1/classify", {"content": b"", "headers": {"Content-Type": "image/png"}}, 422, "image_undecodable"),
        ("/v1/classify", {"json": {"image": ""}}, 422, "image_undecodable"),
        ("/v1/detect", {"content": b"GIF89a broken", "headers": {"Content-Type": "image/gif"}}, 422,
         "image_undecodable"),
        ("/v1/sentiment", {"json": {"text": " \n"}}, 422, "text_empty"),
    ],
)  # fmt: skip
def test_bad_requests_get_their_problem(
    http: httpx.Client, is_problem: Checks, path: str, request_: dict[str, Any], status: int, code: str
) -> None:
    """Each kind of bad input is answered with its own code, as in the OpenAPI document."""
    is_problem(http.post(path, **request_), status, code)


@pytest.mark.parametrize("query", ["top_k=1001", "top_k=99999"])
def test_options_past_the_model_are_refused_by_its_step(http: httpx.Client, is_problem: Checks, query: str,
                                                         coffee: bytes) -> None:  # fmt: skip
    """The gateway does not know the number of classes: the step refuses, and is named."""
    body = is_problem(http.post(f"/v1/classify?{query}", files={"image": ("a", coffee)}), 422, "invalid_parameter")
    assert (body["model"], body["step"]) == ("efficientnet_lite0", "postprocess")


def test_unknown_classes_are_refused(http: httpx.Client, is_problem: Checks, astronaut: bytes) -> None:
    """An unknown label is an error, not an empty answer; for a whole batch too."""
    files = {"image": ("a", astronaut)}
    assert (
        "unicorn"
        in is_problem(http.post("/v1/detect?classes=unicorn", files=files), 422, "invalid_parameter")["detail"]
    )
    batch = [("images", ("a", astronaut))] * 2
    is_problem(http.post("/v1/detect/batch?classes=unicorn", files=batch), 422, "invalid_parameter")


def test_a_failing_step_is_a_redacted_502(http: httpx.Client, is_problem: Checks) -> None:
    """An exception in a step, or an error that it returns, shows neither its traceback nor its path."""
    is_problem(say(http, "raise"), 502, "backend_error")
    is_problem(say(http, "error"), 502, "backend_error")
    assert is_problem(say(http, "refuse image_undecodable"), 422, "image_undecodable")["step"] == "preprocess"
    is_problem(say(http, "refuse backend_error"), 502, "backend_error")


def test_a_refusal_with_an_unknown_code_is_not_passed_on(http: httpx.Client, is_problem: Checks) -> None:
    """Codes outside the table never reach a caller."""
    is_problem(say(http, "refuse no_such_code"), 422, "invalid_tensor")


def test_a_model_that_breaks_the_contract_is_unsupported(http: httpx.Client, is_problem: Checks) -> None:
    """Scores in FP64 do not fit the task; the answer names the tensor."""
    body = is_problem(http.post("/v1/sentiment?model=wrong_contract", json={"text": "a"}), 501, "unsupported")
    assert "score" in body["detail"]


def test_the_deadline_is_kept(http: httpx.Client, is_problem: Checks) -> None:
    """A request to a slow step is answered at the caller's deadline."""
    begun = time.monotonic()
    is_problem(say(http, "sleep 2", {"X-Request-Timeout-Ms": "200"}), 504, "deadline_exceeded")
    assert time.monotonic() - begun < 1.5
    assert say(http, "good").status_code == 200  # the step has slept enough: the next test must find it awake


def test_a_full_queue_is_overloaded(stack: Any, is_problem: Checks) -> None:
    """Beyond its queue's limit a model refuses, and the answer has Retry-After."""

    def ask(_: int) -> httpx.Response:
        with stack.client() as http:
            return say(http, "sleep 0.5", model="short_queue")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 1 <= len(refused) < 8
    for answer in refused:
        is_problem(answer, 429, "overloaded")


def half_a_request(stack: Any, headers: str) -> bytes:
    """Send the head of a request and the beginning of its body; return all bytes until the end."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as connection:
        connection.sendall(f"POST /v1/sentiment HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{{".encode())
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_a_body_that_does_not_arrive_times_out(stack: Any) -> None:
    """Half a body is answered when the deadline passes."""
    headers = "Content-Type: application/json\r\nContent-Length: 20\r\nX-Request-Timeout-Ms: 300"
    answer = half_a_request(stack, headers)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"request_body_timeout"' in answer


def test_request_ids_are_kept_or_replaced(http: httpx.Client) -> None:
    """A visible ASCII id of up to 128 characters is kept; anything else is replaced."""
    for given, kept in (("abc-1", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("é", False)):
        request = http.build_request("GET", "/livez")
        request.headers.raw.append((b"X-Request-ID", given.encode("latin-1")))
        request.headers = httpx.Headers([*request.headers.raw, (b"X-Request-ID", given.encode("latin-1"))])
        answer = http.send(request).headers["X-Request-ID"]
        assert (answer == given) is kept
        assert len(answer) == 36 or kept


def test_bad_items_of_a_batch_fail_alone(http: httpx.Client, coffee: bytes) -> None:
    """A corrupt, an empty, an enormous and a good image give three problems and one answer."""
    buffer = io.BytesIO()
    Image.new("RGB", (300, 300), "red").save(buffer, "PNG")
    images = [buffer.getvalue()[:-200], b"", png(65_536, 65_536), coffee]
    answer = http.post("/v1/classify/batch", files=[("images", ("a", image)) for image in images])
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [row.get("error", {}).get("code") for row in results] == [
        "image_undecodable",
        "image_undecodable",
        "image_too_large",
        None,
    ]
    assert results[3]["predictions"][0]["label"] == "espresso"
    assert answer.json()["failed"] == 3


def test_too_many_bytes_in_flight_are_refused(make_gateway: Callable[..., Any], stack: Any) -> None:
    """The bodies of all requests together have a bound; past it, a request is refused, and later served again."""
    small = make_gateway(stack, GATEWAY_MAX_BYTES_IN_FLIGHT="100000")
    with small.client() as http:
        refused = http.post("/v1/classify", content=bytes(200_000), headers={"Content-Type": "image/png"})
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert http.post("/v1/sentiment", json={"text": "Great."}).status_code == 200
        assert "gateway_body_bytes 0.0" in http.get("/metrics").text
    small.stop()


def test_images_are_fetched_from_allowed_hosts_only(
    make_gateway: Callable[..., Any], stack: Any, coffee: bytes, tmp_path: Any
) -> None:
    """With an allow-list, `image_url` works for its hosts; a redirect or another host is refused."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Pictures(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/coffee.jpg" else 302)
            self.send_header("Location", "http://localhost/elsewhere")
            self.end_headers()
            self.wfile.write(coffee)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    host = HTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    gateway = make_gateway(stack, GATEWAY_IMAGE_URL_HOSTS="127.0.0.1")
    base = f"http://127.0.0.1:{host.server_port}"
    with gateway.client() as http:

        def ask(url: str) -> httpx.Response:
            return http.post("/v1/classify", json={"image_url": url})

        assert ask(f"{base}/coffee.jpg").json()["predictions"][0]["label"] == "espresso"
        assert ask(f"{base}/moved").json()["code"] == "image_undecodable"
        assert ask(f"http://localhost:{host.server_port}/coffee.jpg").json()["code"] == "invalid_parameter"
        assert ask("file:///etc/passwd").json()["code"] == "malformed_request"
    gateway.stop()
    host.shutdown()
    host.server_close()


def test_without_triton_the_gateway_says_so(make_stack: Callable[..., Any]) -> None:
    """A gateway whose Triton was never there is alive, not ready, and answers 503."""
    lonely = make_stack(())
    lonely.start_gateway()
    with lonely.client() as http:
        for _ in range(300):
            try:
                http.get("/livez")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        assert http.get("/livez").status_code == 200
        ready = http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "not_ready")
        assert ready.json()["reason"]
        answer = http.post("/v1/sentiment", json={"text": "a"})
        assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
    lonely.stop()


def test_models_come_and_go_while_all_runs(stack: Any, http: httpx.Client, is_problem: Checks) -> None:
    """A loaded model is served within 5 s; a vanished one answers 503 at first."""

    def code_within(seconds: float, wanted: int) -> httpx.Response:
        begun = time.monotonic()
        while True:
            answer = http.post("/v1/sentiment?model=short_queue", json={"text": "a"})
            if answer.status_code == wanted or time.monotonic() - begun > seconds:
                return answer
            time.sleep(0.1)

    with closing(stack.control()) as triton:
        triton.unload("short_queue")
        is_problem(code_within(5, 503), 503, "model_not_ready")
        triton.load("short_queue")
    assert code_within(5, 200).status_code == 200


def test_options_reach_every_step_by_the_names_of_the_query() -> None:
    """A list of classes crosses Triton as one JSON array in a string."""
    from app.tasks.detection import DetectionOptions

    options = DetectionOptions(score_threshold=0.5, classes=["person", "3"])
    assert options.parameters() == {"score_threshold": 0.5, "classes": '["person", "3"]'}


def test_batches_do_not_stall(http: httpx.Client) -> None:
    """No batch waits for half a second while Triton's instances are idle: 40 small ones take less than 40 stalls."""
    begun = time.monotonic()
    for _ in range(40):
        assert http.post("/v1/sentiment/batch", json={"texts": ["good day", "bad"] * 4}).status_code == 200
    assert time.monotonic() - begun < 8


def test_a_half_surrogate_is_one_items_problem(http: httpx.Client) -> None:
    """A string that is not valid Unicode fails its own item only."""
    body = b'{"texts": ["good", "\\ud800", "bad"]}'
    answer = http.post("/v1/sentiment/batch", content=body, headers={"Content-Type": "application/json"}).json()
    assert [row.get("error", {}).get("code") for row in answer["results"]] == [None, "malformed_request", None]


def test_an_offer_to_upgrade_does_not_lose_the_body(http: httpx.Client) -> None:
    """Clients that offer HTTP/2 by an Upgrade header are answered by HTTP/1.1."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    assert http.post("/v1/sentiment", json={"text": "Great."}, headers=offer).json()["label"] == "positive"


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("version=latest", "version must be a whole number such as 1."),
        ("version=0", "version must be a whole number such as 1."),
        ("top_k=5_0", "top_k must be a whole number such as 1."),
        ("top_k=five", "top_k must be a whole number such as 1."),
        ("top_k=0", "top_k should be greater than or equal to 1."),
        ("top_k=1&top_k=2", "top_k must be given once."),
        ("model=a&model=b", "model must be given once."),
        ("model=", "model must not be empty."),
        ("topk=1", "topk is not an option of this route."),
    ],
)
def test_wrong_options_are_named(
    http: httpx.Client, is_problem: Checks, coffee: bytes, query: str, detail: str
) -> None:
    """The sentence begins with the option's name and gives its allowed values."""
    answer = http.post(f"/v1/classify?{query}", files={"image": ("a", coffee)})
    assert is_problem(answer, 422, "invalid_parameter")["detail"] == detail


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("classes=", "classes must not be empty."),
        ("score_threshold=0_0.5", "score_threshold must be a number such as 0.5."),
        ("classes=a%00b%0Ac", "classes names 'a\ufffdb\ufffdc', which this model does not know."),
    ],
)
def test_wrong_options_of_detection_are_named(
    http: httpx.Client, is_problem: Checks, astronaut: bytes, query: str, detail: str
) -> None:
    """No value of an option cuts the sentence."""
    answer = http.post(f"/v1/detect?{query}", files={"image": ("a", astronaut)})
    assert is_problem(answer, 422, "invalid_parameter")["detail"] == detail


def test_numbers_are_taken_as_people_write_them(http: httpx.Client, astronaut: bytes) -> None:
    """Whole numbers, decimals with or without a leading zero, and exponents are accepted."""
    for query in (
        "score_threshold=1",
        "score_threshold=.5",
        "score_threshold=5e-1",
        "iou_threshold=0.50&classes=person",
    ):
        assert http.post(f"/v1/detect?{query}", files={"image": ("a", astronaut)}).status_code == 200
    both = http.post("/v1/detect?classes=person&classes=cat", files={"image": ("a", astronaut)})
    assert both.status_code == 200


def test_a_form_that_was_cut_short_says_so(http: httpx.Client, is_problem: Checks, coffee: bytes) -> None:
    """A form without its last boundary is not read as a form without parts."""
    form = http.build_request("POST", "/v1/classify", files={"image": ("a", coffee)})
    for end in (-30_000, -50, -4):
        headers = {"Content-Type": form.headers["Content-Type"]}
        answer = http.post("/v1/classify", content=form.read()[:end], headers=headers)
        assert "cut short" in is_problem(answer, 400, "malformed_request")["detail"]


def test_a_form_in_an_encoding_that_cannot_be_read_is_malformed(http: httpx.Client, is_problem: Checks) -> None:
    """A charset that cannot decode the text is the caller's error."""
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\na\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}
    is_problem(http.post("/v1/classify", content=body, headers=headers), 400, "malformed_request")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/health", "/metrics", "/v1/models", "/docs"])
def test_head_is_answered_like_get(http: httpx.Client, path: str) -> None:
    """A HEAD gets the status and the headers of the GET, and no content."""
    answer = http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == http.get(path).headers["content-type"]


def test_head_of_a_route_that_takes_only_posts_is_not_allowed(http: httpx.Client) -> None:
    """Such a route has no GET."""
    answer = http.head("/v1/classify")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_the_log_has_the_details_that_the_answer_hides(http: httpx.Client, stack: Any) -> None:
    """The full text of a failure is in the log with the request's id; the answer has neither."""
    answer = say(http, "raise", {"X-Request-ID": "find-me-in-the-log"})
    assert (answer.status_code, answer.json()["code"]) == (502, "backend_error")
    assert "Traceback" not in answer.text
    lines = [line for line in (stack.folder / "gateway.out").read_text().splitlines() if "find-me-in-the-log" in line]
    assert any("triton failed" in line and "model.py failed" in line for line in lines), lines


def waited(answer: httpx.Response) -> float:
    """Return the milliseconds of waiting for a slot in an answer's Server-Timing."""
    spans = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))
    return float(spans["wait"])


def test_items_of_a_batch_wait_for_their_turn(make_gateway: Callable[..., Any], stack: Any) -> None:
    """A batch larger than the bound is served whole, a single request has its turn meanwhile, and the wait is told."""
    small = make_gateway(stack, GATEWAY_MAX_ITEMS_PER_MODEL="2")

    def batch(timeout_ms: int) -> httpx.Response:
        with small.client() as http:
            query, headers = {"model": "misbehaving"}, {"X-Request-Timeout-Ms": str(timeout_ms)}
            return http.post("/v1/sentiment/batch", params=query, json={"texts": ["sleep 0.2"] * 8}, headers=headers)

    with ThreadPoolExecutor(1) as pool, small.client() as http:
        whole = pool.submit(batch, 30_000)
        time.sleep(0.3)
        single = say(http, "good")
        assert single.status_code == 200
        assert (whole.result().status_code, whole.result().json()["failed"]) == (200, 0)
        assert waited(single) < 0.6 * waited(whole.result())
    cut = batch(700)
    codes = [row.get("error", {}).get("code") for row in cut.json()["results"]]
    assert set(codes) == {None, "deadline_exceeded"}
    small.stop()


def test_requests_that_outlast_a_stop_are_told_so(make_gateway: Callable[..., Any], stack: Any) -> None:
    """A gateway that is stopped answers what it cannot finish with 503 `draining`, and writes its line in the log."""
    stopping = make_gateway(stack, GATEWAY_DRAIN_TIMEOUT_S="1")

    def ask() -> httpx.Response:
        with stopping.client() as http:
            return say(http, "sleep 4")

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        time.sleep(0.5)
        stopping.gateway.terminate()
        answer = asked.result()
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert answer.headers["Retry-After"]
    stopping.gateway.wait(10)
    log = (stopping.folder / "gateway.out").read_text()
    assert log.count("code=draining") == 1
    assert "Traceback" not in log
    with stack.client() as http:
        assert say(http, "good").status_code == 200  # the step has slept enough: the next test must find it awake


def test_too_many_items_under_way_are_refused(make_gateway: Callable[..., Any], stack: Any) -> None:
    """Past the bound per model a request is refused at once, and served again when there is room."""
    small = make_gateway(stack, GATEWAY_MAX_ITEMS_PER_MODEL="2", GATEWAY_MAX_QUEUE_PER_MODEL="0")

    def ask(_: int) -> int:
        with small.client() as http:
            return say(http, "sleep 0.5").status_code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(ask, range(6))) == [200, 200, 429, 429, 429, 429]
    assert ask(0) == 200
    small.stop()
