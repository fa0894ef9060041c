"""Tables of allowed and refused host names and web pages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from starlette.types import Message, Scope

from app.errors import ForbiddenError, GatewayError, MalformedRequestError
from app.main import create_app
from app.security import exposure
from app.security.door import Door
from app.security.hosts import Hosts
from app.security.origins import is_same
from app.settings import Settings

ADDRESSES = ("127.0.0.1", "127.0.0.1:8080", "10.1.2.3:80", "[::1]", "[::1]:8080", "[fe80::1%25eth0]:8080", "8.8.8.8")
LOCALHOST = ("localhost", "LOCALHOST:8080", "localhost.", "localhost.:8080", "")
FOREIGN = (
    *("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.io", "evil-localhost", "x"),
    *("2130706433", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.01", "127.0.0.1.", "127.0.0.256", "::1", "[127.0.0.1]"),
    *("[::1", "[::1]x", "[evil.example]", "localhost:80:80", "localhost:x", "localhost/", "a@localhost", "localhost@a"),
    *("localhost, evil.example", "local host", "localhost\x00", "lôcalhost", "l" * 400, ".", "localhost.."),
)


@pytest.mark.parametrize("host", [*ADDRESSES, *LOCALHOST])
def test_names_that_cannot_be_rebound_are_allowed(host: str) -> None:
    """Addresses and localhost, with or without a port, in any case."""
    assert Hosts(()).allows(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_foreign(host: str) -> None:
    """Names that only look like addresses, and invalid hosts, are refused."""
    assert not Hosts(("gateway.example", "*.b.example")).allows(host)


def test_names_are_allowed_by_the_settings() -> None:
    """A name, all names below one, or any."""
    hosts = Hosts(("gateway.example", "*.b.example"))
    for host in ("gateway.example", "Gateway.Example.:443", "a.b.example", "c.a.b.example:1", "127.0.0.1"):
        assert hosts.allows(host), host
    for host in ("b.example", "a.gateway.example", "ab.example", "a.b.example.evil", "*.b.example"):
        assert not hosts.allows(host), host
    assert all(Hosts(("*",)).allows(host) for host in FOREIGN)


@pytest.mark.parametrize(
    ("address", "given", "allowed"),
    [
        ("127.0.0.1", "", ()),
        ("::1", "", ()),
        ("localhost", "", ()),
        ("0.0.0.0", "", ("*",)),
        ("::", "", ("*",)),
        ("10.0.0.1", "", ("*",)),
        ("gateway", "", ("*",)),
        ("0.0.0.0", "A.example, *.b.example", ("a.example", "*.b.example")),
        ("127.0.0.1", "*", ("*",)),
    ],
)
def test_allowed_names_depend_on_the_address(
    monkeypatch: pytest.MonkeyPatch, address: str, given: str, allowed: tuple[str, ...]
) -> None:
    """On loopback no further name, elsewhere any, unless set; one line warns that anyone may use the gateway."""
    monkeypatch.setenv("GATEWAY_HOST", address)
    monkeypatch.setenv("GATEWAY_HOSTS", given)
    settings = Settings()
    assert settings.allowed_hosts == allowed
    with structlog.testing.capture_logs() as lines:
        exposure.warn(settings)
    assert [line["event"].startswith("no authentication") for line in lines] == [True] * (not settings.loopback)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hosts", "a.example:80"),
        ("hosts", "http://a.example"),
        ("hosts", "a.*.example"),
        ("hosts", "a b"),
        ("cors_origins", "a.example"),
        ("cors_origins", "https://a.example/"),
        ("cors_origins", "https://*.example"),
        ("cors_origins", "null"),
        ("cors_origins", "ftp://a.example"),
    ],
)
def test_settings_that_could_never_match_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A name with a port or an origin with a path is refused at the start."""
    monkeypatch.setenv(f"GATEWAY_{name.upper()}", value)
    with pytest.raises(ValueError, match=r"is neither an? (host name|origin)"):
        Settings()


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:8080", "localhost:8080", True),
        ("http://LOCALHOST:8080", "localhost:8080", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("https://a.example", "a.example", True),
        ("https://a.example", "a.example:443", True),
        ("http://a.example", "a.example:80", True),
        ("http://a.example:80", "a.example", True),
        ("https://a.example", "a.example:80", False),
        ("http://a.example", "a.example:443", False),
        ("http://localhost:3000", "localhost:8080", False),
        ("http://localhost", "localhost:8080", False),
        ("http://localhost:8080", "127.0.0.1:8080", False),
        ("https://evil.example", "a.example", False),
        ("https://a.example.evil", "a.example", False),
        ("https://a.example/", "a.example", False),
        ("null", "a.example", False),
        ("", "", False),
        ("null", "", False),
        ("file://", "", False),
        ("chrome-extension://a", "a", False),
        ("https://a.example https://a.example", "a.example", False),
    ],
)
def test_pages_are_compared_by_host_and_port(origin: str, host: str, same: bool) -> None:
    """By either scheme with its own port; another port of the same machine is another page."""
    assert is_same(origin, host) is same


def scope(method: str = "POST", target: str = "/v1/sentiment", **headers: str) -> Scope:
    """Return the scope of a request."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": raw,
    }


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_foreign_pages_are_refused(method: str) -> None:
    """For every method except GET and HEAD; no origin passes, two origins do not."""
    door = Door(Settings())
    door.enter(scope(method, host="localhost"))
    door.enter(scope(method, host="localhost", origin="http://localhost"))
    twice = scope(method, host="localhost", origin="http://localhost")
    twice["headers"].append((b"origin", b"http://localhost"))
    for refused in (scope(method, host="localhost", origin="https://evil.example"), twice):
        with pytest.raises(ForbiddenError):
            door.enter(refused)
    door.enter(scope("GET", host="localhost", origin="https://evil.example"))


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("http://evil.example/livez", ForbiddenError),
        ("HTTP://evil.example", ForbiddenError),
        ("http://evil.example:80?a=b", ForbiddenError),
        ("http://localhost@evil.example/", ForbiddenError),
        ("http:///livez", MalformedRequestError),
        ("localhost:8080", MalformedRequestError),
        ("livez", MalformedRequestError),
    ],
)
def test_a_host_in_the_target_counts(target: str, error: type[GatewayError]) -> None:
    """RFC 9112, 3.2.2: it replaces the header. A target must be a path or a URL."""
    with pytest.raises(error):
        Door(Settings()).enter(scope("GET", target, host="localhost"))


def test_a_target_that_is_a_url_is_split() -> None:
    """It gives the host and the path."""
    entered = Door(Settings()).enter(scope("GET", "http://127.0.0.1:8080/a%20b", host="evil.example"))
    assert (entered["path"], entered["raw_path"]) == ("/a b", b"/a%20b")
    assert entered["headers"] == [(b"host", b"127.0.0.1:8080")]


def test_the_cache_is_bounded() -> None:
    """Neither many names nor long ones fill the memory."""
    door = Door(Settings())
    for number in range(2000):
        with pytest.raises(ForbiddenError):
            door.enter(scope(host=f"{number}.example" + "x" * number))
    assert door._remembered.cache_info().currsize == 256


def ask(settings: Settings, given: Scope) -> tuple[int, dict[str, str], bytes]:
    """Send a request through the application; no server is needed for it."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(create_app(settings)(given, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent)


ALLOWED = Settings(cors_origins=("https://app.example",))


def preflight(origin: str, **headers: str) -> Scope:
    """Return the answer to a browser's preflight request for a POST of another page."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type", **headers}
    return scope("OPTIONS", host="localhost", origin=origin, **asked)


def test_pages_of_allowed_origins_are_answered() -> None:
    """The answer names allowed methods and headers, and readable headers; a refusal does too."""
    status, headers, _ = ask(ALLOWED, preflight("https://app.example"))
    assert (status, headers["access-control-allow-origin"]) == (200, "https://app.example")
    assert "X-Request-ID" in headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in headers
    status, headers, _ = ask(ALLOWED, scope(host="localhost", origin="https://app.example"))
    assert (status, headers["access-control-allow-origin"]) == (503, "https://app.example")
    assert "Retry-After" in headers["access-control-expose-headers"]
    assert headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        (ALLOWED, preflight("https://evil.example")),
        (ALLOWED, preflight("https://app.example", **{"access-control-request-method": "DELETE"})),
        (ALLOWED, preflight("https://app.example", **{"access-control-request-headers": "x-other"})),
        (ALLOWED, scope(host="localhost", origin="https://evil.example")),
        (Settings(), preflight("https://app.example")),
        (Settings(), scope("GET", "/livez", host="evil.example")),
        (Settings(), scope("GET", "/docs/", host="evil.example")),
    ],
)
def test_others_get_a_problem(settings: Settings, given: dict[str, Any]) -> None:
    """403 `forbidden` with the request's id, and no header that lets the page read it."""
    status, headers, body = ask(settings, given)
    assert (status, b'"code":"forbidden"' in body) == (403, True), body
    assert headers["x-request-id"].encode() in body
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("path", ["/docs/", "/livez/", "/playground"])
def test_nothing_is_redirected(path: str) -> None:
    """A redirect would repeat the client's host name."""
    status, headers, _ = ask(Settings(hosts=("*",)), scope("GET", path, host="evil.example"))
    assert (status, "location" in headers) == (404, False)
