"""The first check of every request: the host name that it addresses, and the web page that sends it."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

from starlette.types import Scope

from app.errors import ForbiddenError, MalformedRequestError
from app.security.hosts import ANY, MAX_LENGTH, Hosts
from app.security.origins import is_same
from app.settings import Settings

SAFE = ("GET", "HEAD")
"""Methods that run no model. OPTIONS is not among them: it asks whether a page may send another method."""
MAX_REMEMBERED = 256
MAX_HEADERS = 200
URL = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)


class Door:
    """Lets requests in. Decisions are cached by the values of the two headers."""

    def __init__(self, settings: Settings) -> None:
        self._hosts = Hosts(settings.allowed_hosts)
        self._origins = frozenset(settings.cors_origins)
        self._remembered = lru_cache(MAX_REMEMBERED)(self._refusal)

    def enter(self, scope: Scope) -> Scope:
        """Return the scope of a request that may come in; a target that is a URL is split into host and path.

        Raises:
            ForbiddenError: when its host name or its page is not allowed.
            MalformedRequestError: when its target is neither a path nor a URL, or when it has too many headers.

        """
        if len(scope["headers"]) > MAX_HEADERS:
            raise MalformedRequestError(f"A request may have {MAX_HEADERS} headers at most.")
        if not scope["path"].startswith(("/", "*")):
            scope = _without_url(scope)
        host, origins = b"", []
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origins.append(value)
        origin = b" ".join(origins) if origins and scope["method"] not in SAFE else None
        short = len(host) + len(origin or b"") <= 2 * MAX_LENGTH
        refusal = (self._remembered if short else self._refusal)(host, origin)
        if refusal:
            raise ForbiddenError(refusal)
        return scope

    def _refusal(self, host: bytes, origin: bytes | None) -> str:
        """Return why a request is refused; empty when it is allowed."""
        name = host.decode("latin-1")
        if not self._hosts.allows(name):
            return "This host name is not allowed; add it to GATEWAY_HOSTS."
        if origin is None or ANY in self._origins:
            return ""
        page = origin.decode("latin-1")
        if page in self._origins or is_same(page, name):
            return ""
        return "Pages of this origin may not use the gateway; add the origin to GATEWAY_CORS_ORIGINS."


def _without_url(scope: Scope) -> Scope:
    """Split a target that is a URL: return the scope with the URL's path and host (RFC 9112, 3.2.2)."""
    found = URL.fullmatch(scope["raw_path"])
    if found is None:
        raise MalformedRequestError("The request's target must be a path.")
    host, path = found[1], found[2] or b"/"
    headers = [(b"host", host), *((name, value) for name, value in scope["headers"] if name != b"host")]
    return {**scope, "path": unquote(path.decode("ascii")), "raw_path": path, "headers": headers}
