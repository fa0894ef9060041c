"""A JSON reader that works while the body arrives, for bodies too long to be parsed at once.

chunks -> feed() -> tokens -> values -> close()

Depth, elements and names cost more memory than their bytes, so they are limited before they are built. Any chunk is
read in a few milliseconds, so that the event loop runs between two chunks. Values are those of `json.loads`: the last
of two equal names wins, NaN is a number, half a surrogate pair is kept. Long strings stay UTF-8.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from app.errors import BatchTooLargeError, BodyTooLargeError, MalformedRequestError

MAX_DEPTH = 32
MAX_ELEMENTS = 4096
MAX_NAME = 1024
"""The longest name of a field, in bytes."""
MAX_SCALAR = 4400
"""The longest number, in characters; `int` takes 4,300 digits."""
PIECE = 64 * 1024
"""A longer string is kept as a LongText, in pieces of about this many bytes."""

SPACE = re.compile(r"[ \t\n\r]*+")
SCALAR = re.compile(r'[^\x00-\x20",:\[\]{}]*+')
# Ends before the closing quote, before an escape that is wrong or incomplete, or at the end of the text.
STRING = re.compile(r'[^"\\]*+(?:\\(?:[^u]|u[0-9A-Fa-f]{4})[^"\\]*+)*+')
ESCAPE = len(r"\u0000")

# The states: what may come next.
VALUE, FIRST_VALUE, NAME, FIRST_NAME, COLON, COMMA, NOTHING = range(7)


class LongText:
    """A long string: its UTF-8 in pieces of whole characters. Half a surrogate pair is encoded as a character is."""

    __slots__ = ("pieces", "size")

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.size = sum(map(len, pieces))

    def __str__(self) -> str:
        """Return the whole string."""
        return _text(b"".join(self.pieces))

    def beginning(self) -> str:
        """Return its first 64 characters."""
        return _text(self.pieces[0])[:64]


class JsonReader:
    """Reads one JSON text.

    Args:
        names: the names that the outermost object may have; empty for any.
        max_items: for a batch, limit on the elements of a list in the outermost object; they are allowed in addition to
            the elements that any body may have.

    Attributes:
        items: the newest list in the outermost object, which may be incomplete; the caller may replace its elements.

    """

    def __init__(self, names: tuple[str, ...] = (), max_items: int | None = None) -> None:
        self.items: list[Any] = []
        self._names = names
        self._max_items = max_items
        self._max_elements = MAX_ELEMENTS + (max_items or 0)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._expected = VALUE
        self._containers: list[dict[str, Any] | list[Any]] = []
        self._fields: list[str] = []
        """The names that wait for their values, one at most for each open object."""
        self._elements = 0
        self._held = ""
        """The end of the text so far, if it is an incomplete token."""
        self._string: _String | None = None
        self._result: Any = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            MalformedRequestError: when they are not JSON.
            BodyTooLargeError: when they are nested too deep, or have too many elements or too long names or numbers.
            BatchTooLargeError: when a list has more elements than a batch may have.

        """
        try:
            self._read(self._held + self._decoder.decode(chunk))
        except ValueError as error:
            raise MalformedRequestError("The body is not valid JSON.") from error

    def close(self) -> Any:
        """Return the value.

        Raises:
            MalformedRequestError: when it is not complete.

        """
        self.feed(b" ")  # ends a number
        if self._expected != NOTHING:
            raise MalformedRequestError("The body is not valid JSON.")
        return self._result

    def _read(self, text: str) -> None:
        at = 0
        self._held = ""
        while True:
            if self._string is not None:
                at = self._string.read(text, at)
                if self._string.open:
                    self._held = text[at:]
                    return
                string, self._string = self._string, None
                self._end_string(string)
            at = SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
            if at == len(text):
                return
            sign = text[at]
            if sign == '"':
                self._begin_string()
            elif sign in "[{":
                self._open([] if sign == "[" else {})
            elif sign in "]}":
                self._shut(sign)
            elif sign in ",:":
                self._separate(sign)
            else:
                end = SCALAR.match(text, at).end()  # type: ignore[union-attr]
                if end - at > MAX_SCALAR:
                    raise BodyTooLargeError(f"A number may have {MAX_SCALAR} digits at most.")
                if end == len(text):
                    self._held = text[at:]
                    return
                self._begin_value()
                self._add(json.loads(text[at:end]))
                at = end
                continue
            at += 1

    def _begin_string(self) -> None:
        name = self._expected in (NAME, FIRST_NAME)
        if not name:
            self._begin_value()
        self._string = _String(name)

    def _end_string(self, string: _String) -> None:
        if not string.name:
            self._add(string.value())
            return
        name = str(string.value())
        if len(self._containers) == 1 and self._names and name not in self._names:
            raise MalformedRequestError(f"The body must be a JSON object with the one key {either(self._names)}.")
        self._fields.append(name)
        self._expected = COLON

    def _begin_value(self) -> None:
        """Count a value, before it is built."""
        if self._expected not in (VALUE, FIRST_VALUE):
            raise ValueError
        self._elements += 1
        in_batch = self._max_items is not None and len(self._containers) == 2 and self._containers[1] is self.items
        if in_batch and len(self.items) == self._max_items:
            raise BatchTooLargeError(f"A batch may have {self._max_items} items at most.")
        if self._elements > self._max_elements:
            raise BodyTooLargeError(f"A JSON body may have {self._max_elements} elements at most.")

    def _open(self, container: dict[str, Any] | list[Any]) -> None:
        self._begin_value()
        if len(self._containers) == MAX_DEPTH:
            raise BodyTooLargeError(f"A JSON body may be nested {MAX_DEPTH} deep at most.")
        self._containers.append(container)
        if isinstance(container, dict):
            self._expected = FIRST_NAME
            return
        if len(self._containers) == 2 and isinstance(self._containers[0], dict):
            self.items = container
        self._expected = FIRST_VALUE

    def _shut(self, sign: str) -> None:
        ends = (FIRST_VALUE, COMMA) if sign == "]" else (FIRST_NAME, COMMA)
        if self._expected not in ends or isinstance(self._containers[-1], list) is not (sign == "]"):
            raise ValueError
        self._add(self._containers.pop())

    def _separate(self, sign: str) -> None:
        if self._expected != (COMMA if sign == "," else COLON):
            raise ValueError
        self._expected = NAME if sign == "," and isinstance(self._containers[-1], dict) else VALUE

    def _add(self, value: Any) -> None:
        """Add a complete value to its list or object."""
        if not self._containers:
            self._result, self._expected = value, NOTHING
            return
        into = self._containers[-1]
        if isinstance(into, list):
            into.append(value)
        else:
            into[self._fields.pop()] = value
        self._expected = COMMA


class _String:
    """A string that is arriving."""

    def __init__(self, name: bool) -> None:
        self.name = name
        """Whether it is the name of a field."""
        self.open = True
        self._pieces: list[bytes] = []
        self._newest = bytearray()

    def read(self, text: str, at: int) -> int:
        """Read on; return where to continue in `text`, or where the part begins that waits for more text."""
        end = STRING.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
        self.open = text[end : end + 1] != '"'
        if self.open and len(text) - end >= ESCAPE:
            raise ValueError
        part: str = json.loads(f'"{text[at:end]}"')
        if self.open and "\ud800" <= part[-1:] <= "\udbff":
            # The other half of the pair may follow.
            part, end = part[:-1], end - ESCAPE
        self._newest += part.encode("utf-8", "surrogatepass")
        if self.name and len(self._newest) > MAX_NAME:
            raise BodyTooLargeError(f"A name in a JSON body may have {MAX_NAME} bytes at most.")
        if len(self._newest) > PIECE:
            self._pieces.append(bytes(self._newest))
            self._newest.clear()
        return end if self.open else end + 1

    def value(self) -> str | LongText:
        """Return the whole string."""
        newest = bytes(self._newest)
        return LongText([*self._pieces, newest]) if self._pieces else _text(newest)


def _text(encoded: bytes) -> str:
    return encoded.decode("utf-8", "surrogatepass")


def either(names: tuple[str, ...]) -> str:
    """Return the names as part of a sentence."""
    return " or ".join(f"'{name}'" for name in names)
