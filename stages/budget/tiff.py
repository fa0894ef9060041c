"""TIFF and BigTIFF: the entries of the first directory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from stages.budget.costs import Cost, flood

MAX_STRIPS: Final = 200_000  # 50 megapixels in tiles of 16 x 16

_WIDTH, _HEIGHT = 256, 257  # tags
_STRIPS: Final = (273, 279, 324, 325)  # tags: offsets and sizes of strips and of tiles
_DIRECTORIES: Final = (34665, 34853, 40965)  # tags: EXIF, GPS, interoperability
# Bytes of one value, by the type of an entry.
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}


def matches(data: bytes) -> bool:
    """Tell whether a file begins as a TIFF."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"MM\0+", b"II+\0")


def walk(data: bytes, found: Cost) -> None:
    """Read the first directory (TIFF 6.0, section 2; BigTIFF), and count the entries of the directories it names.

    The size of a tag is not counted: Photoshop keeps all layers in one tag, and a process reads them.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2 if order == "<" else 3] == 43
    (offset,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    width = height = 0
    for tag, kind, count, value in _entries(data, offset, order, big):
        found.count(0)
        if tag in _STRIPS and count > MAX_STRIPS:
            raise flood(f"more than {MAX_STRIPS} strips or tiles")
        if tag in (_WIDTH, _HEIGHT):
            number = int.from_bytes(value[: _SIZES.get(kind, 4)], "little" if order == "<" else "big")
            width, height = (number, height) if tag == _WIDTH else (width, number)
            found.pixels = width * height
        elif tag in _DIRECTORIES:
            (inner,) = struct.unpack(f"{order}{'Q' if big else 'I'}", value)
            for _ in _entries(data, inner, order, big):
                found.count(0)


def _entries(data: bytes, offset: int, order: str, big: bool) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield tag, type, count and value (or its offset) of a directory's entries, as far as the file goes."""
    head, form = (f"{order}Q", f"{order}HHQ8s") if big else (f"{order}H", f"{order}HHI4s")
    if offset >= len(data):
        return
    (count,) = struct.unpack_from(head, data, offset)
    offset += struct.calcsize(head)
    step = struct.calcsize(form)
    for index in range(min(count, (len(data) - offset) // step)):
        yield struct.unpack_from(form, data, offset + index * step)
