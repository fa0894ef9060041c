"""Images and texts from request bodies: multipart, raw, base64 or a URL in JSON. Bytes are counted as they stream in.

    receive() -> Body (caps, clock) -> media type -> one item, or the items of a batch

A body of more than SMALL bytes is read in slices, so that no body blocks the event loop. An unusable item of a batch is
returned as its error, in its place; the other items are served.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Literal

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.context import Context
from app.errors import (
    BatchTooLargeError,
    BodyTooLargeError,
    GatewayError,
    ImageUndecodableError,
    MalformedRequestError,
    TextEmptyError,
    UnsupportedMediaTypeError,
)
from app.http import encoded
from app.http.body import Body
from app.http.fetch import Fetch
from app.http.json_reader import JsonReader, LongText, either
from app.settings import Settings

Item = bytes | GatewayError
JSON, MULTIPART, RAW = "application/json", "multipart/form-data", "application/octet-stream"
# Room for JSON's braces and keys, and for multipart's boundaries, around the items.
FRAMING_BYTES = 16_384
SMALL = 65_536
"""JSON of up to this many bytes is parsed in one call, which takes a few milliseconds at most."""
SLICE = 8_192
"""Bytes of a form that are parsed in one call: the parser is slow on many short lines."""
# JSON may write a byte of text as six: \u00e9.
ESCAPED = 6


class _InMemoryParser(MultiPartParser):
    """Starlette's parser; parts stay in memory, since the bytes of a body are limited already."""

    spool_max_size = 1 << 40
    complete = False

    def on_end(self) -> None:
        """Note that the last boundary has come; without it, the form was cut short."""
        self.complete = True


class Media:
    """Reads request bodies within the limits of the settings."""

    def __init__(self, settings: Settings, fetch: Fetch) -> None:
        self._settings = settings
        self._fetch = fetch

    async def image(self, request: Request, body: Body) -> bytes:
        """Return the one encoded image of a request."""
        limit = self._settings.max_image_bytes
        kind = media_type(request)
        if kind == MULTIPART:
            body.limit(limit + FRAMING_BYTES)
            form = await self._form(request, body, "image", 1)
            if len(form) != 1:
                raise MalformedRequestError("The form must hold exactly one part 'image'.")
            return await self._part_image(form[0])
        if kind == JSON:
            body.limit(_encoded_size(limit) + FRAMING_BYTES)
            fields = await self._json(body, ("image", "image_url"))
            if "image_url" in fields:
                deadline = Context.of(request).deadline
                return self._usable(await self._fetch.image(fields["image_url"], body, deadline))
            return await self._text_image(fields["image"])
        if kind == RAW or kind.startswith("image/"):
            return await self.raw_image(body)
        raise UnsupportedMediaTypeError(
            "Send an image as multipart/form-data, image/*, application/octet-stream or application/json."
        )

    async def raw_image(self, body: Body) -> bytes:
        """Return the image that is the whole body."""
        body.limit(self._settings.max_image_bytes)
        return self._usable(await body.bytes())

    async def encoded_image(self, body: Body) -> bytes:
        """Return the image that is the whole body, as base64."""
        body.limit(_encoded_size(self._settings.max_image_bytes) + FRAMING_BYTES)
        whole = await body.bytes()
        if not whole.isascii():
            raise MalformedRequestError("The image is not valid base64.")
        pieces = [whole[at : at + SMALL] for at in range(0, len(whole), SMALL)] or [whole]
        del whole
        return self._usable(await encoded.decode_pieces(pieces))

    async def fields(self, request: Request, body: Body, kind: Literal["image", "text"]) -> dict[str, Any]:
        """Return the JSON object of a body that holds one image or text among other fields."""
        if media_type(request) != JSON:
            raise UnsupportedMediaTypeError("Send the body as application/json.")
        sizes = {
            "image": _encoded_size(self._settings.max_image_bytes),
            "text": self._settings.max_text_bytes * ESCAPED,
        }
        body.limit(sizes[kind] + FRAMING_BYTES)
        fields = await _read_json(body, JsonReader())
        if not isinstance(fields, dict):
            raise MalformedRequestError("The body must be a JSON object.")
        return fields

    async def value(self, value: object, kind: Literal["image", "text"]) -> bytes:
        """Return the image or text that a value of JSON holds."""
        return await (self._text_image(value) if kind == "image" else self._text(value))

    async def images(self, request: Request, body: Body) -> list[Item]:
        """Return the encoded images of a batch, in order."""
        kind = media_type(request)
        if kind == MULTIPART:
            body.limit(self._settings.max_batch_bytes + FRAMING_BYTES * self._settings.max_batch_items)
            parts = await self._form(request, body, "images", self._settings.max_batch_items)
            self._check_count(parts)
            return [await _item(self._part_image, part) for part in parts]
        if kind == JSON:
            body.limit(_encoded_size(self._settings.max_batch_bytes) + FRAMING_BYTES)
            return await self._json_list(body, "images", self._text_image)
        raise UnsupportedMediaTypeError("Send a batch as multipart/form-data or application/json.")

    async def text(self, request: Request, body: Body) -> bytes:
        """Return the one text of a request, as UTF-8."""
        self._require_json(request)
        body.limit(self._settings.max_text_bytes * ESCAPED + FRAMING_BYTES)
        return await self._text((await self._json(body, ("text",)))["text"])

    async def texts(self, request: Request, body: Body) -> list[Item]:
        """Return the texts of a batch, as UTF-8, in order."""
        self._require_json(request)
        body.limit(self._settings.max_batch_bytes)
        return await self._json_list(body, "texts", self._text)

    async def _text(self, value: object) -> bytes:
        if isinstance(value, LongText):
            self._check_text(value.size)
            value = str(value)
        text = _utf8(value)
        self._check_text(len(text))
        return text

    def _check_text(self, size: int) -> None:
        if size > self._settings.max_text_bytes:
            raise BodyTooLargeError(f"A text may have {self._settings.max_text_bytes} bytes at most.")

    def _require_json(self, request: Request) -> None:
        if media_type(request) != JSON:
            raise UnsupportedMediaTypeError("Send a text as application/json.")

    async def _form(self, request: Request, body: Body, name: str, count: int) -> list[Any]:
        parser = _InMemoryParser(request.headers, _slices(body), max_files=count + 1, max_fields=1)
        try:
            form: FormData = await parser.parse()
        except MultiPartException as error:
            if error.message.startswith("Too many files"):
                raise BatchTooLargeError(f"There may be {count} parts '{name}' at most.") from error
            raise MalformedRequestError(f"The form cannot be read: {error.message}") from error
        except UnicodeError as error:
            raise MalformedRequestError("The form's text cannot be read in the encoding that it names.") from error
        except KeyError as error:  # a multipart content type without a boundary
            raise MalformedRequestError("The form's content type names no boundary.") from error
        if not parser.complete:
            raise MalformedRequestError("The form is cut short: its last boundary is missing.")
        unknown = next((key for key, _ in form.multi_items() if key != name), None)
        if unknown is not None:
            raise MalformedRequestError(f"The form may hold parts named '{name}' only.")
        return form.getlist(name)

    def _check_count(self, items: list[Any]) -> None:
        if not items:
            raise MalformedRequestError("The batch is empty.")
        if len(items) > self._settings.max_batch_items:
            raise BatchTooLargeError(f"A batch may have {self._settings.max_batch_items} items at most.")

    async def _json(self, body: Body, names: tuple[str, ...]) -> dict[str, Any]:
        return _one_field(await _read_json(body, JsonReader(names)), names)

    async def _json_list(self, body: Body, name: str, read: Callable[[object], Awaitable[bytes]]) -> list[Item]:
        reader = JsonReader((name,), self._settings.max_batch_items)
        batch = _Batch(reader, read)
        values = _one_field(await _read_json(body, reader, batch.read_new), (name,))[name]
        if not isinstance(values, list):
            raise MalformedRequestError(f"'{name}' must be a list.")
        self._check_count(values)
        return await batch.whole(values)

    async def _text_image(self, value: object) -> bytes:
        return self._usable(await encoded.decode(value))

    async def _part_image(self, part: object) -> bytes:
        return self._usable(await _bytes_of(part))

    def _usable(self, image: bytes) -> bytes:
        if not image:
            raise ImageUndecodableError("The image is empty.")
        if len(image) > self._settings.max_image_bytes:
            raise BodyTooLargeError(f"An image may have {self._settings.max_image_bytes} bytes at most.")
        return image


def media_type(request: Request) -> str:
    """Return the media type of the body, lower case and without parameters.

    Raises:
        UnsupportedMediaTypeError: when the body is compressed.

    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaTypeError("Send the body without a content encoding.")
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _encoded_size(size: int) -> int:
    return size * 4 // 3 + 4


async def _nothing() -> None:
    """Do nothing after a chunk."""


async def _read_json(body: Body, reader: JsonReader, after: Callable[[], Awaitable[None]] = _nothing) -> object:
    """Return the JSON of a body: by `json.loads` when it is small, else by `reader`, calling `after` for each chunk."""
    if 0 < body.announced <= SMALL:
        return _parse(await body.bytes())
    async for chunk in body.stream():
        reader.feed(chunk)
        await after()
    return reader.close()


def _parse(body: bytes) -> object:
    try:
        # Not pydantic's parser: it refuses the whole body when one string holds half a surrogate pair.
        return json.loads(body.decode())
    except ValueError as error:
        raise MalformedRequestError("The body is not valid JSON.") from error
    except RecursionError as error:
        raise BodyTooLargeError("The JSON is nested too deep.") from error


def _one_field(fields: object, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(fields, dict) or len(fields) != 1 or not fields.keys() <= set(names):
        raise MalformedRequestError(f"The body must be a JSON object with the one key {either(names)}.")
    return fields


class _Batch:
    """Turns the elements of a batch into items while the rest arrives, so that no element is kept in both forms."""

    def __init__(self, reader: JsonReader, read: Callable[[object], Awaitable[bytes]]) -> None:
        self._reader = reader
        self._read = read
        self._list: list[Any] = []
        self._done = 0

    async def read_new(self) -> None:
        """Replace the elements that have come since the last call."""
        if self._list is not self._reader.items:
            self._list, self._done = self._reader.items, 0
        while self._done < len(self._list):
            self._list[self._done] = await _item(self._read, self._list[self._done])
            self._done += 1

    async def whole(self, values: list[Any]) -> list[Item]:
        """Return the items of a complete list."""
        if values is self._list:
            return values
        return [await _item(self._read, value) for value in values]


async def _slices(body: Body) -> AsyncGenerator[bytes, None]:
    """Yield the body in slices; the event loop runs other tasks between them."""
    async for chunk in body.stream():
        for at in range(0, len(chunk), SLICE):
            if at:
                await asyncio.sleep(0)
            yield chunk[at : at + SLICE]


def _utf8(value: object) -> bytes:
    if not isinstance(value, str):
        raise MalformedRequestError("A text must be a string.")
    if not value.strip():
        raise TextEmptyError("The text is empty.")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise MalformedRequestError("The text is not valid Unicode.") from error


async def _bytes_of(part: object) -> bytes:
    if not isinstance(part, UploadFile):
        raise MalformedRequestError("The part must be a file: give it a file name.")
    return await part.read()


async def _item(read: Callable[[Any], Awaitable[bytes]], value: object) -> Item:
    try:
        return await read(value)
    except GatewayError as error:
        return error
