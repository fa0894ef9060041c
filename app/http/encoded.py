"""Base64, decoded in pieces: one call for a whole image would hold up the event loop."""

from __future__ import annotations

import asyncio
import binascii

from app.errors import MalformedRequestError
from app.http.json_reader import LongText

# The ASCII part of what `str.split` takes for white space.
SPACE = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f "


async def decode(value: object) -> bytes:
    """Return the bytes of base64 text, or of a `data:` URL that holds base64. White space is ignored.

    Raises:
        MalformedRequestError: when it is neither.

    """
    if isinstance(value, str):
        return await decode_pieces([value.encode("utf-8", "surrogatepass")])
    if isinstance(value, LongText):
        return await decode_pieces(value.pieces)
    raise MalformedRequestError("An image in JSON must be a base64 string.")


async def decode_pieces(pieces: list[bytes]) -> bytes:
    """Decode UTF-8 in one or more pieces of whole characters; the list is emptied on the way, to free memory.

    Raises:
        MalformedRequestError: when it is not base64.

    """
    decoder = _Decoder()
    done = []
    pieces[0] = _content(pieces[0])
    last = len(pieces) - 1
    try:
        for index, piece in enumerate(pieces):
            if index:
                await asyncio.sleep(0)
            pieces[index] = b""
            done.append(decoder.decode(piece, last=index == last))
    except ValueError as error:
        raise MalformedRequestError("The image is not valid base64.") from error
    return b"".join(done)


def _content(piece: bytes) -> bytes:
    """Return the content of a `data:` URL without its header; return any other text as it is."""
    if piece[:5].lower() != b"data:":
        return piece
    header, comma, content = piece.partition(b",")
    if not comma or not header.lower().endswith(b";base64"):
        raise MalformedRequestError("A data: URL must hold base64.")
    return content


class _Decoder:
    """Decodes groups of four characters as they come."""

    def __init__(self) -> None:
        self._held = b""

    def decode(self, piece: bytes, *, last: bool) -> bytes:
        """Return the bytes of all complete groups except the newest, which may be padded; of all at the last piece."""
        characters = self._held + _without_space(piece)
        whole = len(characters) if last else max(0, (len(characters) - 1) // 4 * 4)
        self._held = characters[whole:]
        if not last and b"=" in characters[:whole]:
            raise ValueError
        return binascii.a2b_base64(characters[:whole], strict_mode=True)


def _without_space(piece: bytes) -> bytes:
    """Return a piece without its white space, Unicode's included."""
    if piece.isascii():
        return piece.translate(None, SPACE)
    return "".join(piece.decode("utf-8", "surrogatepass").split()).encode("ascii")
