"""How images and texts reach us: multipart, a raw body, base64 or a URL in JSON. Bytes are counted as they stream in.

    receive() -> Body (caps, clock) -> media type -> one item, or the items of a batch

An item of a batch that cannot be used is returned as its error, in its place: its neighbours are served.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.body import Body
from app.errors import (
    BatchTooLargeError,
    BodyTooLargeError,
    GatewayError,
    ImageUndecodableError,
    MalformedRequestError,
    TextEmptyError,
    UnsupportedMediaTypeError,
)
from app.fetch import Fetch
from app.settings import Settings
from app.telemetry import timing

Item = bytes | GatewayError
JSON, MULTIPART, RAW = "application/json", "multipart/form-data", "application/octet-stream"
# Room for JSON's braces and keys, and for multipart's boundaries, around what is counted.
ENVELOPE_BYTES = 16_384
# JSON may write a byte of text as six: \u00e9.
ESCAPED = 6


class _InMemoryParser(MultiPartParser):
    """Starlette's parser; parts stay in memory, since the bytes of a body are capped before."""

    spool_max_size = 1 << 40
    complete = False

    def on_end(self) -> None:
        """Note that the last boundary has come; a form without it was cut on its way."""
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
            body.limit(limit + ENVELOPE_BYTES)
            form = await self._form(request, body, "image", 1)
            if len(form) != 1:
                raise MalformedRequestError("The form must hold exactly one part 'image'.")
            return self._usable(await _bytes_of(form[0]))
        if kind == JSON:
            body.limit(_encoded_size(limit) + ENVELOPE_BYTES)
            fields = await self._json(body, ("image", "image_url"))
            if "image_url" in fields:
                left_s = timing.of(request).left_s()
                return self._usable(await self._fetch.image(fields["image_url"], body, left_s))
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
        body.limit(_encoded_size(self._settings.max_image_bytes) + ENVELOPE_BYTES)
        try:
            return self._usable(decode_base64((await body.bytes()).decode("ascii")))
        except UnicodeDecodeError as error:
            raise MalformedRequestError("The image is not valid base64.") from error

    async def fields(self, request: Request, body: Body, kind: Literal["image", "text"]) -> dict[str, Any]:
        """Return the JSON object of a body that holds one image or text beside other fields."""
        if media_type(request) != JSON:
            raise UnsupportedMediaTypeError("Send the body as application/json.")
        sizes = {
            "image": _encoded_size(self._settings.max_image_bytes),
            "text": self._settings.max_text_bytes * ESCAPED,
        }
        body.limit(sizes[kind] + ENVELOPE_BYTES)
        fields = _parse(await body.bytes())
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
            body.limit(self._settings.max_batch_bytes + ENVELOPE_BYTES * self._settings.max_batch_items)
            parts = await self._form(request, body, "images", self._settings.max_batch_items)
            self._check_count(parts)
            return [await _item(self._part_image, part) for part in parts]
        if kind == JSON:
            body.limit(_encoded_size(self._settings.max_batch_bytes) + ENVELOPE_BYTES)
            values = await self._json_list(body, "images")
            return [await _item(self._text_image, value) for value in values]
        raise UnsupportedMediaTypeError("Send a batch as multipart/form-data or application/json.")

    async def text(self, request: Request, body: Body) -> bytes:
        """Return the one text of a request, as UTF-8."""
        self._require_json(request)
        body.limit(self._settings.max_text_bytes * ESCAPED + ENVELOPE_BYTES)
        return await self._text((await self._json(body, ("text",)))["text"])

    async def texts(self, request: Request, body: Body) -> list[Item]:
        """Return the texts of a batch, as UTF-8, in order."""
        self._require_json(request)
        body.limit(self._settings.max_batch_bytes)
        return [await _item(self._text, value) for value in await self._json_list(body, "texts")]

    async def _text(self, value: object) -> bytes:
        text = _utf8(value)
        if len(text) > self._settings.max_text_bytes:
            raise BodyTooLargeError(f"A text may have {self._settings.max_text_bytes} bytes at most.")
        return text

    def _require_json(self, request: Request) -> None:
        if media_type(request) != JSON:
            raise UnsupportedMediaTypeError("Send a text as application/json.")

    async def _form(self, request: Request, body: Body, name: str, count: int) -> list[Any]:
        parser = _InMemoryParser(request.headers, body.stream(), max_files=count + 1, max_fields=1)
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
        fields = _parse(await body.bytes())
        if not isinstance(fields, dict) or len(fields) != 1 or not fields.keys() <= set(names):
            keys = " or ".join(f"'{name}'" for name in names)
            raise MalformedRequestError(f"The body must be a JSON object with the one key {keys}.")
        return fields

    async def _json_list(self, body: Body, name: str) -> list[Any]:
        values = (await self._json(body, (name,)))[name]
        if not isinstance(values, list):
            raise MalformedRequestError(f"'{name}' must be a list.")
        self._check_count(values)
        return values

    async def _text_image(self, value: object) -> bytes:
        return self._usable(decode_base64(value))

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


def decode_base64(value: object) -> bytes:
    """Return the bytes of base64 text, or of a `data:` URL that holds base64."""
    if not isinstance(value, str):
        raise MalformedRequestError("An image in JSON must be a base64 string.")
    if value[:5].lower() == "data:":
        header, comma, value = value.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise MalformedRequestError("A data: URL must hold base64.")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedRequestError("The image is not valid base64.") from error


def _encoded_size(size: int) -> int:
    return size * 4 // 3 + 4


def _parse(body: bytes) -> object:
    try:
        # Not pydantic's parser: it refuses all of a body in which one string holds half a surrogate pair.
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedRequestError("The body is not valid JSON.") from error


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
