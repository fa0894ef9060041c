"""Images by URL, only from hosts that the operator has allowed; off when none is."""

from __future__ import annotations

import asyncio

import httpx

from app.context import Deadline
from app.errors import (
    BodyTooLargeError,
    DeadlineExceededError,
    ImageUndecodableError,
    InvalidParameterError,
    MalformedRequestError,
)
from app.http.body import Body
from app.settings import Settings

TIMEOUT_S = 5.0
# Compressed content could inflate to a thousand times the bytes that were counted.
PLAIN = {"Accept-Encoding": "identity"}


class Fetch:
    """Fetches images over HTTP(S). Redirects are not followed: they could lead to a host that is not allowed."""

    def __init__(self, settings: Settings) -> None:
        self._hosts = frozenset(settings.image_url_hosts)
        self._max_bytes = settings.max_image_bytes
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def image(self, url: object, body: Body, deadline: Deadline) -> bytes:
        """Return the bytes behind `url`; they count as held by the request with this `body`.

        Raises:
            DeadlineExceededError: when they have not arrived by the request's deadline.
            InvalidParameterError: when fetching is off or the host is not allowed.
            ImageUndecodableError: when the image cannot be fetched.
            BodyTooLargeError: when it is larger than an image may be.
            OverloadedError: when the process may hold no more bytes.

        """
        self._check(url)
        left_s = deadline.left_s()
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=TIMEOUT_S, headers=PLAIN, trust_env=False)
        try:
            async with asyncio.timeout(min(TIMEOUT_S, left_s)), self._client.stream("GET", str(url)) as response:
                return await self._read(response, body)
        except (httpx.HTTPError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and left_s < TIMEOUT_S:
                raise DeadlineExceededError("The image did not arrive within the request's deadline.") from error
            raise ImageUndecodableError("The image could not be fetched.") from error

    def _check(self, url: object) -> None:
        if not self._hosts:
            raise InvalidParameterError("image_url is off: this gateway allows no host to fetch images from.")
        try:
            parsed = httpx.URL(url) if isinstance(url, str) else None
        except (httpx.InvalidURL, ValueError):
            parsed = None
        if parsed is None or parsed.scheme not in ("http", "https"):
            raise MalformedRequestError("image_url must be an http or https URL.")
        if parsed.host.lower() not in self._hosts:
            raise InvalidParameterError("Images may not be fetched from this host.")

    async def _read(self, response: httpx.Response, body: Body) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise ImageUndecodableError(f"The image's host answered {response.status_code}.")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise ImageUndecodableError("The image's host sent it with a content encoding.")
        chunks, size = [], 0
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > self._max_bytes:
                raise BodyTooLargeError(f"An image may have {self._max_bytes} bytes at most.")
            body.hold(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)
