"""Base64 decoded in pieces gives the bytes of base64 decoded at once."""

from __future__ import annotations

import asyncio
import base64
import itertools
import random

import pytest

from app.errors import MalformedRequestError
from app.http import encoded
from app.http.json_reader import LongText


def cut(text: str, *places: int) -> list[bytes]:
    """Return the UTF-8 of a text in pieces."""
    bounds = [0, *places, len(text)]
    return [text[a:b].encode("utf-8", "surrogatepass") for a, b in itertools.pairwise(bounds)]


BAD = ["a", "====", "data:image/png,abc", "data:image/png;base64", 5, None, "é", "YQ==YQ==", "\ud800", "YWJj!"]


@pytest.mark.parametrize("value", [*BAD, LongText([b"YW", b"Jj", "é".encode()]), LongText([b"YQ==", b"YWJj"])])
def test_what_is_not_base64_is_malformed(value: object) -> None:
    """Only valid base64, or a data: URL that holds it, is accepted."""
    with pytest.raises(MalformedRequestError):
        asyncio.run(encoded.decode(value))


@pytest.mark.parametrize("header", ["", "data:image/png;base64,", "DATA:;BASE64,"])
@pytest.mark.parametrize("space", ["", "\n", " \t", "\u2028", "\xa0"])
def test_pieces_are_decoded_as_the_whole(header: str, space: str) -> None:
    """A text may be cut anywhere, with white space of any alphabet between any two characters."""
    chance = random.Random(1)
    for size in (0, 1, 2, 3, 50):
        content = chance.randbytes(size)
        text = space.join(base64.b64encode(content).decode())
        assert asyncio.run(encoded.decode(header + text)) == content
        for _ in range(10):
            places = sorted(chance.randint(0, len(text)) for _ in range(3))
            pieces = cut(text, *places)
            pieces[0] = header.encode() + pieces[0]
            assert asyncio.run(encoded.decode_pieces(pieces)) == content
            assert not any(pieces)


def test_other_tasks_run_between_pieces() -> None:
    """A long image is not decoded in one step of the event loop."""

    async def turns() -> int:
        decoding = asyncio.create_task(encoded.decode_pieces([b"YWJj"] * 50))
        count = 0
        while not decoding.done():
            count += 1
            await asyncio.sleep(0)
        return count

    assert asyncio.run(turns()) >= 50
