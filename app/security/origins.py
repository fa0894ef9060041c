"""Which web pages may use the gateway. A browser names the page in `Origin`; other clients send none."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from app.errors import ForbiddenError
from app.security import hosts

PORTS = {"http": "80", "https": "443"}
METHODS = ("GET", "HEAD", "POST")
REQUEST_HEADERS = (
    *("Accept", "Authorization", "Content-Type", "X-API-Key"),
    *("X-Request-ID", "X-Request-Timeout-Ms", "traceparent"),
)
"""Headers of requests that a page of an allowed origin may set."""
ANSWER_HEADERS = ("X-Request-ID", "Server-Timing", "Retry-After")
"""Headers of answers that such a page may read."""


def is_same(origin: str, host: str) -> bool:
    """Return whether a page of `origin` was loaded from `host`; by either scheme, since TLS may end at a proxy."""
    scheme, _, rest = origin.lower().partition("://")
    page, asked = hosts.split(rest), hosts.split(host)
    if page is None or asked is None or scheme not in PORTS:
        return False
    return page[0] == asked[0] and (page[1] or PORTS[scheme]) == (asked[1] or PORTS[scheme])


class Cors(CORSMiddleware):
    """Starlette's middleware, for pages of allowed origins, without cookies; its refusals are answered as problems."""

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=allowed,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            expose_headers=ANSWER_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer the question that a browser asks before it sends a page's request.

        Raises:
            ForbiddenError: when the page may not send that request.

        """
        answer = super().preflight_response(request_headers)
        if answer.status_code != 200:
            raise ForbiddenError("Pages of other origins may not send this method or these headers.")
        return answer
