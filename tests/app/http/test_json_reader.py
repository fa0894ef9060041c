"""JSON that is read in pieces gives what `json.loads` gives, within bounds."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from app.errors import BatchTooLargeError, BodyTooLargeError, GatewayError, MalformedRequestError
from app.http.json_reader import MAX_DEPTH, MAX_ELEMENTS, MAX_NAME, MAX_SCALAR, PIECE, JsonReader, LongText

TOKENS = (
    *("{", "}", "[", "]", ",", ":", '"', "\\", " ", "\n", "\ufeff", "\x01"),
    *('"a"', '"b"', '"k":', '"\\u0061"', '"\\""', '"\\\\"', '"\\/\\b"', '"\\x"', '"\\u00e', '"\x01"', '"é😀"'),
    *('"\\ud83d\\ude00"', '"\\ud83d"', '"\\ude00\\ud83d"', '"\\ud83d\\n"', '"\\uD83D\\ud83d\\ude00"'),
    *("1", "-0.5e3", "01", "1.", "1,", "NaN", "-Infinity", "true", "null", "tru", "nan"),
)
WHOLE = tuple(token for token in TOKENS if token[0] in '"-1N' and len(token) > 3)


def read(body: bytes, size: int, *names: str, most: int | None = None) -> Any:
    """Read a body in chunks of `size` bytes."""
    reader = JsonReader(names, most)
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    return plain(reader.close())


def plain(value: Any) -> Any:
    """Return a value with its long texts as strings."""
    if isinstance(value, LongText):
        assert all(piece.decode("utf-8", "surrogatepass") for piece in value.pieces[:-1])
        return str(value)
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def outcome(parse: Any, *arguments: Any) -> str:
    """Return the value or the error as text: NaN is not equal to itself."""
    try:
        return repr(parse(*arguments))
    except (ValueError, MalformedRequestError):
        return "malformed"


def document(chance: random.Random, depth: int = 0) -> str:
    """Return random JSON, sometimes with invalid parts."""
    kind = chance.random() if depth < 5 else 1
    if kind < 0.3:
        return f"[{', '.join(document(chance, depth + 1) for _ in range(chance.randint(0, 3)))}]"
    if kind < 0.6:
        names = ('"a"', '"b"', '"\\u0061"', ' "c" ')
        return f"{{{','.join(f'{chance.choice(names)}:{document(chance, depth + 1)}' for _ in range(3))}}}"
    return chance.choice(WHOLE)


def test_pieces_are_read_as_the_whole() -> None:
    """Valid and broken documents, cut anywhere, give the values and refusals of `json`."""
    chance = random.Random(3)
    fine = 0
    for turn in range(6000):
        text = document(chance) if turn % 2 else "".join(chance.choices(TOKENS, k=chance.randint(1, 6)))
        if turn % 3 == 0:
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice(TOKENS) + text[at + chance.randint(0, 1) :]
        expected = outcome(lambda body: json.loads(body.decode()), text.encode())
        assert outcome(read, text.encode(), chance.choice((1, 2, 3, 7, 10_000))) == expected, text
        fine += expected != "malformed"
    assert fine > 1000


@pytest.mark.parametrize("sign", ["a", "é", "😀", "\\n", "\\u00e9", "\\ud83d\\ude00", "\\ud83d", "\\\\", '\\"'])
def test_long_strings_are_read_as_the_whole(sign: str) -> None:
    """Any character or escape, with chunks cut anywhere."""
    body = f'{{"text": "{sign * (3 * PIECE)}"}}'.encode()
    expected = json.loads(body)
    for size in (997, PIECE, PIECE + 5, len(body)):
        assert read(body, size) == expected


@pytest.mark.parametrize("body", [b'{"a": "\xff"}', b'{"a": "\xc3', b"\xef\xbb\xbf{}", b'{"a": "\xed\xa0\x80"}', b""])
def test_invalid_utf_8_is_malformed(body: bytes) -> None:
    """No byte is replaced by another."""
    for size in (1, 100):
        with pytest.raises(MalformedRequestError):
            read(body, size)


@pytest.mark.parametrize(
    ("unit", "error"),
    [
        (b"[", BodyTooLargeError),
        (b'{"a":', BodyTooLargeError),
        (b"[[],", BodyTooLargeError),
        (b"[1" + b"1" * MAX_SCALAR, BodyTooLargeError),
        (b'{"' + b"k" * (MAX_NAME + 1), BodyTooLargeError),
        (b'{"images":[[' + b"[]," * MAX_ELEMENTS, BodyTooLargeError),
        (b'{"images":[' + b"[]," * 65, BatchTooLargeError),
        (b'{"images":{"a":[' + b"1," * MAX_ELEMENTS, BodyTooLargeError),
        (b'{"picture":', MalformedRequestError),
    ],
)
def test_excess_is_refused_before_the_body_ends(unit: bytes, error: type[GatewayError]) -> None:
    """Depth, elements, names, numbers, items of a batch and unknown fields are refused at once."""
    reader = JsonReader(("images", "a"), 64)

    def feed() -> None:
        for _ in range(MAX_ELEMENTS):
            reader.feed(unit)

    with pytest.raises(error):
        feed()


def test_bodies_at_the_limits_are_read() -> None:
    """The largest batch and the deepest nesting are accepted."""
    deep = "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2)
    body = json.dumps({"images": ["a"] * 63}).encode()[:-2] + f", {deep}]}}".encode()
    assert len(read(body, 10, "images", most=64)["images"]) == 64
    assert len(read(json.dumps({"texts": [1] * 9000}).encode(), 1000, "texts", most=9000)["texts"]) == 9000
    numbers = [*range(MAX_ELEMENTS - 1)]
    assert read(json.dumps(numbers).encode(), 1000) == numbers
