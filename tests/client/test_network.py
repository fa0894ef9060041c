"""The clients on real sockets: the deadline holds whatever a server does, and connections are reused."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpcore
import httpx
import pytest

from tests.client.conftest import Client
from tests.standins.gateway import SENTIMENT
from triton_gateway_client import Batches, DeadlineExceededError, Gateway, GatewayError, Sentiment, network
from triton_gateway_client.exchange import Patience

Talk = Callable[[socket.socket, threading.Event], None]
Wrap = Callable[[socket.socket], socket.socket]
TIMEOUT_S = 1.0
LONG_S = 30.0
"""Longer than any busy machine makes of the timeout, and shorter than a server here stays silent."""
BODY = json.dumps(SENTIMENT).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


@contextmanager
def listener(talk: Talk) -> Iterator[str]:
    """Listen on a port of this machine, and do with each connection what `talk` does, until the client leaves."""
    end = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def accept() -> None:
            while not end.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(LONG_S)
                    try:
                        talk(connection, end)
                    except OSError:
                        continue

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            end.set()
            thread.join(LONG_S)


def asked(connection: socket.socket) -> bytes:
    """Return a whole request, whose body is a JSON object; nothing when the client has left."""
    read = b""
    while not read.endswith(b"}") and (more := connection.recv(65536)):
        read += more
    return read


def _drip(connection: socket.socket, end: threading.Event, begin: bytes, more: bytes) -> None:
    connection.sendall(begin)
    while not end.wait(0.05):
        connection.sendall(more)


def silent(_: socket.socket, end: threading.Event) -> None:
    """Say nothing."""
    end.wait(2 * LONG_S)


def headers_without_end(connection: socket.socket, end: threading.Event) -> None:
    """Send a byte of a header now and then."""
    asked(connection)
    _drip(connection, end, b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x")


def body_without_end(connection: socket.socket, end: threading.Event) -> None:
    """Send a byte of the body now and then."""
    asked(connection)
    _drip(connection, end, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ")


@pytest.mark.parametrize("talk", [silent, headers_without_end, body_without_end])
def test_deadline_holds_whatever_the_server_does(client: Client, talk: Talk) -> None:
    """A server that is silent, or sends a byte now and then for an hour, is given up at the deadline."""
    with listener(talk) as url:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            client(url, "sentiment", "fine", timeout=TIMEOUT_S)
        assert TIMEOUT_S <= time.monotonic() - begun < LONG_S


def test_a_late_stall_gets_only_the_remaining_time(client: Client) -> None:
    """A server that falls silent late is waited for during the remaining time, not for another timeout."""
    timeout, part = 3.0, 2.4

    def talk(connection: socket.socket, end: threading.Event) -> None:
        asked(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        end.wait(part)
        connection.sendall(b" ")
        end.wait(2 * LONG_S)

    with listener(talk) as url:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            client(url, "sentiment", "fine", timeout=timeout)
        # A second wait of the whole timeout would end after `part + timeout` at the earliest.
        assert timeout <= time.monotonic() - begun < part + timeout


def test_deadline_holds_while_it_sends(client: Client) -> None:
    """A server that reads a large request slowly is given up too."""

    def talk(connection: socket.socket, end: threading.Event) -> None:
        while not end.wait(0.05) and connection.recv(65536):
            pass

    with listener(talk) as url:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            client(url, "classify", bytes(100_000_000), timeout=TIMEOUT_S)
        assert TIMEOUT_S <= time.monotonic() - begun < LONG_S


@pytest.fixture(params=["http", "https"])
def wrapped(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wrap | None:
    """Return what makes a server's connection one of TLS, with a certificate that clients trust; None without TLS."""
    if request.param == "http":
        return None
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    return lambda connection: context.wrap_socket(connection, server_side=True)


def test_connection_is_used_again_and_has_each_calls_own_deadline(wrapped: Wrap | None) -> None:
    """Two calls share a connection; the second ends at its own deadline, and a third connects anew."""
    calls: list[int] = []

    def talk(plain: socket.socket, end: threading.Event) -> None:
        with wrapped(plain) if wrapped else plain as connection:
            calls.append(0)
            while asked(connection):
                calls[-1] += 1
                if calls == [2]:
                    _drip(connection, end, b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x")
                connection.sendall(ANSWER)

    with listener(talk) as url, Gateway(url.replace("http", "https" if wrapped else "http")) as gateway:
        assert gateway.sentiment("one").label == "positive"
        begun = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            gateway.sentiment("two", timeout=TIMEOUT_S)
        assert TIMEOUT_S <= time.monotonic() - begun < LONG_S
        assert gateway.sentiment("three").label == "positive"
    assert calls == [2, 1]


def test_batches_leave_while_others_are_read(client: Client) -> None:
    """Slow items hold back no earlier batch, however many batches may be under way."""
    content = json.dumps({"results": [{"index": 0, **SENTIMENT}], "failed": 0}).encode()
    header = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(content)
    sent, in_time = threading.Event(), []

    def talk(connection: socket.socket, _: threading.Event) -> None:
        asked(connection)
        sent.set()
        connection.sendall(header + content)

    def texts() -> Iterator[str]:
        yield from "ab"  # the first leaves when the second is there
        in_time.append(sent.wait(LONG_S))
        yield "c"

    with listener(talk) as url:
        options = {"batches": Batches(max_items=1, at_once=40)}  # more than the threads of asyncio's own pool
        outcomes = client(url.replace("127.0.0.1", "localhost"), "sentiment_many", texts(), options=options)
    assert [type(each) for each in outcomes] == [Sentiment] * 3
    assert in_time == [True]


def test_gateway_that_comes_up_is_found(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at first: the call is retried until a gateway does."""
    refused = threading.Event()
    pause = Patience.pause

    def seen(patience: Patience, error: GatewayError) -> float | None:
        refused.set()
        return pause(patience, error)

    monkeypatch.setattr(Patience, "pause", seen)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # refuses until it listens
        server.settimeout(LONG_S)

        def serve() -> None:
            refused.wait(LONG_S)
            server.listen()
            with server.accept()[0] as connection:
                connection.settimeout(LONG_S)
                asked(connection)
                connection.sendall(ANSWER)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert client(url, "sentiment", "fine", options={"retries": 20}).label == "positive"
        assert refused.is_set()
        thread.join(LONG_S)


def _kinds() -> list[type[Exception]]:
    """Return httpcore's exceptions, except the one that its pool keeps to itself."""
    kinds = [kind for kind in vars(httpcore).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    kinds.remove(httpcore.ConnectionNotAvailable)
    return sorted(kinds, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", _kinds(), ids=lambda kind: kind.__name__)
def test_every_failure_of_httpcore_has_its_counterpart(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its exceptions on a connection becomes httpx's of the same name; none leaves the client."""

    def fail(*_: object, **__: object) -> bytes:
        raise kind("broken")

    monkeypatch.setattr(network._Stream, "read", fail)
    with listener(silent) as url, Gateway(url, retries=0) as gateway, pytest.raises(GatewayError) as caught:
        gateway.sentiment("fine")
    assert type(caught.value.__cause__) is getattr(httpx, kind.__name__)


def test_proxy_of_the_environment_is_used(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go through the environment's proxy, except to the hosts that it exempts."""
    lines: list[bytes] = []

    def talk(connection: socket.socket, _: threading.Event) -> None:
        lines.append(asked(connection).split(b"\r\n")[0])
        connection.sendall(ANSWER)

    with listener(talk) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert client("http://gateway.example", "sentiment", "fine").label == "positive"
        assert client(url, "sentiment", "fine").label == "positive"
    assert lines == [b"POST http://gateway.example/v1/sentiment HTTP/1.1", b"POST /v1/sentiment HTTP/1.1"]


@pytest.mark.parametrize("talk", [headers_without_end, body_without_end])
def test_deadline_holds_through_a_proxy(client: Client, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that sends a byte now and then is given up at the deadline."""
    with listener(talk) as url:
        monkeypatch.setenv("http_proxy", url)
        begun = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            client("http://gateway.example", "sentiment", "fine", timeout=TIMEOUT_S)
        assert TIMEOUT_S <= time.monotonic() - begun < LONG_S
