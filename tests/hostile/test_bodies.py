"""Bodies made to be expensive are refused or served, and other requests are served meanwhile.

In CI they are small; FAULTS=full makes them as large as the routes take them, and prints the figures.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Any

import psutil
import pytest

FULL = os.environ.get("FAULTS") == "full"
MEGABYTE = 1_000_000
IMAGES, TEXTS, IMAGE, TEXT = "/v1/classify/batch", "/v1/sentiment/batch", "/v1/classify", "/v1/sentiment"
ROBOFLOW = "/roboflow/infer/object_detection"
LIMITS = {IMAGES: 85, TEXTS: 64, IMAGE: 26.6, TEXT: 6, ROBOFLOW: 26.6, f"{IMAGE}?format=hf": 26.6}
"""What the routes take, in megabytes."""
SAMPLED = 6
"""Of these, how much is sent in CI."""
WAIT_S = 0.2 if FULL else 0.5
"""How long nobody may wait beside a hostile body. In CI, other tests run on the same cores."""
JSON = "application/json"
FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'


def size_of(path: str, kind: str) -> int:
    """Return the size of a route's body; a form is not larger than its parts."""
    limit = 64 if kind == FORM else LIMITS[path]
    return int((limit if FULL else min(limit, SAMPLED)) * MEGABYTE)


def filled(head: bytes, unit: bytes, tail: bytes) -> Callable[[int], bytes]:
    """Return a function that makes a body of a size by repeating a unit."""
    return lambda size: head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


def items(count: int, content: bytes) -> Callable[[int], bytes]:
    """Return a function that makes a batch of texts or images, each with repeated content."""

    def make(size: int) -> bytes:
        one = b'"' + content * ((size // count - 16) // len(content)) + b'"'
        name = b"images" if content == b"AAAA" else b"texts"
        return b'{"' + name + b'": [' + b",".join([one] * count) + b"]}"

    return make


def parts(size: int) -> bytes:
    """Return a form of 64 parts."""
    return (PART + bytes(size // 64 - 200) + b"\r\n") * 64 + b"--x--\r\n"


# The route, what the body is, and which codes are right for it.
ATTACKS: dict[str, tuple[str, str, Callable[[int], bytes], set[str]]] = {
    "lists": (IMAGES, JSON, filled(b'{"images":[', b"[],", b"[]]}"), {"batch_too_large"}),
    "objects": (TEXTS, JSON, filled(b'{"texts":[', b'{"a":[]},', b"{}]}"), {"batch_too_large"}),
    "nested_lists": (TEXTS, JSON, filled(b'{"texts":[[', b"[],", b"[]]]}"), {"body_too_large"}),
    "one_image_of_lists": (IMAGE, JSON, filled(b'{"image":[', b"[],", b"[]]}"), {"body_too_large"}),
    "one_text_of_lists": (TEXT, JSON, filled(b'{"text":[', b"[],", b"[]]}"), {"body_too_large"}),
    "parameters": (f"{IMAGE}?format=hf", JSON, filled(b'{"inputs":"","parameters":{"a":[', b"1,", b"1]}}"),
                   {"body_too_large"}),
    "roboflow": (ROBOFLOW, JSON, filled(b'{"class_filter":[', b'"a",', b'"a"]}'), {"body_too_large"}),
    "names": (IMAGE, JSON, filled(b"{", b'"image":1,', b'"image":1}'), {"body_too_large"}),
    "one_name": (IMAGES, JSON, filled(b'{"', b"a", b'":[]}'), {"body_too_large"}),
    "deep": (IMAGES, JSON, filled(b"", b"[", b""), {"body_too_large"}),
    "deep_objects": (TEXTS, JSON, filled(b"", b'{"texts":', b""), {"body_too_large"}),
    "digits": (TEXTS, JSON, filled(b'{"texts":[', b"1", b"]}"), {"body_too_large"}),
    "white_space": (IMAGES, JSON, filled(b"", b" ", b""), {"malformed_request"}),
    "white_space_inside": (IMAGES, JSON, filled(b'{"images":[', b"\n", b"]}"), {"malformed_request"}),
    "one_string": (IMAGES, JSON, filled(b'{"images":["', b"\\u00e9", b'"]}'), {""}),
    "quotes": (IMAGES, JSON, filled(b'{"images":["', b'\\"', b'"]}'), {""}),
    "half_pairs": (TEXTS, JSON, filled(b'{"texts":["', b"\\ud800", b'"]}'), {""}),
    "faces": (IMAGES, JSON, filled(b'{"images":["', "aaaaaaaaaaaaaaaa😀".encode(), b'"]}'), {""}),
    "no_end": (TEXTS, JSON, filled(b'{"texts":["', b"\\n", b""), {"malformed_request"}),
    "texts": (TEXTS, JSON, items(64, b"\\u00e9"), {""}),
    "empty_texts": (TEXTS, JSON, items(64, b" "), {""}),
    "images": (IMAGES, JSON, items(64, b"AAAA"), {""}),
    "spaced_image": (IMAGE, JSON, filled(b'{"image":"', b"A ", b'"}'), {"image_undecodable", "malformed_request"}),
    "wide_spaces": (IMAGE, JSON, filled(b'{"image":"', b"A\\u2028", b'"}'), {"image_undecodable", "malformed_request"}),
    "data_url": (IMAGE, JSON, filled(b'{"image":"data:image/png;base64,', b"AAAA", b'"}'), {"image_undecodable"}),
    "data_url_without_comma": (IMAGE, JSON, filled(b'{"image":"data:', b"a", b'"}'), {"malformed_request"}),
    "image_url": (IMAGE, JSON, filled(b'{"image_url":"', b"a", b'"}'), {"invalid_parameter"}),
    "model_id": (ROBOFLOW, JSON, filled(b'{"image":{"type":"base64","value":"AAAA"},"model_id":"', b"a", b'"}'),
                 {"invalid_parameter"}),
    "parts": (IMAGES, FORM, parts, {""}),
    "part_headers": (IMAGES, FORM, filled(b"--x\r\n", b"a:b\r\n", b""), {"malformed_request"}),
    "boundaries": (IMAGES, FORM, filled(PART, b"--\r\n--\r\n", b"--x--"), {""}),
    "near_boundaries": (IMAGES, FORM, filled(PART, b"\r\n--x\r", b"\r\n--x--\r\n"), {"", "request_body_timeout"}),
}  # fmt: skip


@dataclass
class Beside:
    """The answers to other requests while a body was sent, and the gateway's memory."""

    stack: Any
    waits: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Beside:
        self._process = psutil.Process(self.stack.gateway.pid)
        self.memory.append(self._process.memory_info().rss)
        self._threads = [threading.Thread(target=work) for work in (self._ask, self._weigh)]
        for thread in self._threads:
            thread.start()
        while not self.waits:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with socket.create_connection(("127.0.0.1", self.stack.port), timeout=60) as connection:
            while not self._over.wait(0.01):
                begun = time.monotonic()
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
                response = HTTPResponse(connection)
                response.begin()
                assert (response.status, response.read()) == (200, b'{"status":"alive"}')
                self.waits.append(time.monotonic() - begun)

    def _weigh(self) -> None:
        while not self._over.wait(0.01):
            self.memory.append(self._process.memory_info().rss)

    @property
    def grown(self) -> int:
        """The gateway's largest additional memory, in bytes."""
        return max(self.memory) - self.memory[0]


def head(path: str, kind: str, *fields: str) -> bytes:
    """Return the head of a request."""
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *fields)
    return "\r\n".join([*lines, "\r\n"]).encode()


def answer(connection: socket.socket) -> tuple[int, Any]:
    """Read one answer."""
    response = HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def post(stack: Any, path: str, kind: str, body: bytes) -> tuple[int, Any]:
    """Send a body, as far as the gateway reads it; return the answer."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=60) as connection:
        fields = (f"Content-Length: {len(body)}", "X-Request-Timeout-Ms: 30000")
        try:
            connection.sendall(head(path, kind, *fields) + body)
        except (BrokenPipeError, ConnectionResetError):
            assert path  # it has answered, and waited for a while
        return answer(connection)


@pytest.fixture(scope="module")
def gateway(stack: Any, make_gateway: Callable[..., Any]) -> Iterator[Any]:
    """Return a gateway of its own, so that its memory is only these tests'."""
    made = make_gateway(stack)
    yield made
    made.stop()


@pytest.mark.parametrize("name", ATTACKS)
def test_nobody_waits_beside_a_hostile_body(gateway: Any, record_property: Any, name: str) -> None:
    """It gets its problem, the process answers all the time, and holds little more than the body."""
    path, kind, make, codes = ATTACKS[name]
    body = make(size_of(path, kind))
    begun = time.monotonic()
    with Beside(gateway) as beside:
        status, told = post(gateway, path, kind, body)
    seconds = time.monotonic() - begun
    figures = {
        "mb": len(body) / 1e6,
        "s": seconds,
        "livez_ms": max(beside.waits) * 1000,
        "grown_mb": beside.grown / 1e6,
    }
    for figure, value in figures.items():
        record_property(figure, round(value, 2))
    if FULL:
        print(f"\n  {name}: {status} {told.get('code', '')}, ", {figure: round(v, 1) for figure, v in figures.items()})
    assert told.get("code", "") in codes, told
    assert status == told.get("status", 200)
    assert max(beside.waits) < WAIT_S
    # The call to Triton copies an image twice more.
    assert beside.grown < 3 * len(body) + 2 * min(len(body), 20 * MEGABYTE) + 10 * MEGABYTE


@pytest.mark.parametrize(
    ("path", "excess", "code"),
    [
        (IMAGES, b'{"images":[' + b"[]," * 65, "batch_too_large"),
        (IMAGES, b'{"images":[[' + b"[]," * 5000, "body_too_large"),
        (TEXTS, b"[" * 40, "body_too_large"),
        (TEXTS, b'{"' + b"a" * 2000, "body_too_large"),
        (IMAGE, b'{"picture":"', "malformed_request"),
    ],
)
@pytest.mark.parametrize("length", ["Content-Length: 20000000", "Transfer-Encoding: chunked"])
def test_the_excess_is_answered_while_the_body_comes(
    gateway: Any, path: str, excess: bytes, code: str, length: str
) -> None:
    """The gateway does not wait for the rest of the body."""
    sent = b"%x\r\n%s\r\n" % (len(excess), excess) if "chunked" in length else excess
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        begun = time.monotonic()
        connection.sendall(head(path, JSON, length) + sent)
        status, told = answer(connection)
        assert time.monotonic() - begun < (0.1 if FULL else 0.5)
    assert (status, told["code"]) == (told["status"], code)


def test_a_short_body_nested_too_deep_gets_that_reason(gateway: Any) -> None:
    """It is valid JSON, so the reason is its depth."""
    body = b'{"text": ' + b"[" * 4000 + b"]" * 4000 + b"}"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(head(TEXT, JSON, f"Content-Length: {len(body)}") + body)
        status, told = answer(connection)
    assert (status, told["code"]) == (413, "body_too_large")


def test_chunks_of_one_byte_hold_up_nobody(gateway: Any) -> None:
    """Each costs the parser as much as a long one: a few are accepted, a whole body of them is refused."""
    chunks = b"1\r\na\r\n" * 100_000
    with Beside(gateway) as beside, ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=20))
            connection.sendall(head(TEXT, JSON, "Transfer-Encoding: chunked"))
            with suppress(OSError):  # it is closed meanwhile
                connection.sendall(chunks)
            assert refused(connection)
    assert max(beside.waits) < WAIT_S


def refused(connection: socket.socket) -> bool:
    """Return whether a connection was refused; the answer may be lost while the client is still sending."""
    try:
        return connection.recv(65_536).startswith(b"HTTP/1.1 400 ")
    except ConnectionResetError:
        return True


def test_a_body_in_some_short_chunks_is_served(gateway: Any) -> None:
    """Programs that write word by word send such bodies."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(word), word) for word in [b'{"text": "', *[b"good "] * 500, b'"}', b""])
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(head(TEXT, JSON, "Transfer-Encoding: chunked") + chunks)
        assert answer(connection)[0] == 200


NAMES = ["".join(letters) for letters in itertools.product("abcdefghijklmnopqrst", repeat=3)]


@pytest.mark.parametrize(
    ("path", "fields", "body"),
    [
        (f"{TEXT}?{'&'.join([*NAMES, *NAMES])}", [], b'{"text": "good"}'),
        (TEXT, ["a:"] * 15_000, b'{"text": "good"}'),
        (f"{TEXT}?format=hf", [], json.dumps({"inputs": "good"} | dict.fromkeys(NAMES[:6000], 0)).encode()),
    ],
    ids=["options", "headers", "names"],
)
def test_short_bodies_of_many_parts_are_cheap(gateway: Any, path: str, fields: list[str], body: bytes) -> None:
    """Refusing 64 KB of names costs as much as a picture, not many times more."""
    process, count = psutil.Process(gateway.gateway.pid), 10
    before = sum(process.cpu_times()[:2])
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
            connection.sendall(head(path, JSON, *fields, f"Content-Length: {len(body)}") + body)
            status, _ = answer(connection)
        assert status in (400, 422)
    assert (sum(process.cpu_times()[:2]) - before) / count < 0.06


@pytest.mark.parametrize("kind", ["Content-Length", "chunked"])
def test_bad_items_of_a_long_batch_fail_alone(gateway: Any, kind: str, coffee: bytes) -> None:
    """Short or long body: an unusable item gets a problem of its own."""
    with gateway.client() as http:

        def ask(path: str, body: bytes) -> list[Any]:
            content: Any = body if kind == "Content-Length" else iter([body[:1000], body[1000:]])
            told = http.post(path, content=content, headers={"Content-Type": JSON}).json()
            return [row.get("error", {}).get("code") for row in told["results"]]

        texts = ["I love it.", 5, {"a": [1, None]}, [], None, "", "I hate it.", "long " * 300_000, "good"]
        body = json.dumps({"texts": texts}).encode()[:-2]
        expected = [None, *["malformed_request"] * 4, "text_empty", None, "body_too_large", None, "malformed_request"]
        assert ask(TEXTS, body + b', "\\ud800 half of a pair"]}') == expected
        good = base64.b64encode(coffee).decode()
        images = [good, 5, {}, "a", good[:-7], f"data:image/jpeg;base64,{good}", "", "\n".join(good)]
        expected = [None, *["malformed_request"] * 4, None, "image_undecodable", None]
        assert ask(IMAGES, json.dumps({"images": images}).encode()) == expected


def test_long_bodies_are_read_as_short_ones(gateway: Any, coffee: bytes) -> None:
    """White space after the value changes no answer, of tasks and of dialects."""
    good = base64.b64encode(coffee).decode()
    long = base64.b64encode(coffee + bytes(90_000)).decode()  # what follows the picture is not looked at
    assert len(good) < 60_000
    cases: list[tuple[str, Any]] = [
        (TEXT, {"text": "\ud83d\ude00 I love this camera. é \u2028" * 20}),
        (TEXTS, {"texts": ["I love it.", "\ud83d\ude00"]}),
        (IMAGE, {"image": good}),
        (f"{IMAGE}?format=hf", {"inputs": good, "parameters": {"top_k": 2}}),
        ("/v1/sentiment?format=hf", {"inputs": "I love it."}),
        ("/v1/detect?format=nim", {"input": [{"type": "image_url", "url": f"data:image/jpeg;base64,{good}"}]}),
        (ROBOFLOW, {"image": {"type": "base64", "value": good}, "confidence": 0.5}),
        (f"{IMAGE}?format=hf", {"inputs": 5, "parameters": {}}),
        ("/v1/detect?format=nim", {"input": [{"type": "image_url", "url": good}]}),
    ]
    with gateway.client() as http:

        def ask(path: str, body: str) -> Any:
            headers = {"Content-Type": JSON, "X-Request-ID": "same"}
            told = http.post(path, content=body, headers=headers).json()
            if isinstance(told, dict):
                for name in ("time", "usage"):  # Triton's time, and the size of the file
                    told.pop(name, None)
            return told

        for path, value in cases:
            body = json.dumps(value)
            assert ask(path, body) == ask(path, body.replace(good, long) + " " * 70_000), path
