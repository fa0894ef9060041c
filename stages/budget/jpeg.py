"""JPEG: the segments of the header, and the scans."""

from __future__ import annotations

import re
import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from stages.budget.costs import MAX_JUNK, MIN_SCAN, Cost, flood

MAX_TABLES: Final = 65_536  # bytes of tables before the first scan, which Pillow reads; sound files have 2,000
DOUBTFUL_BYTES: Final = 4_096  # of tables and junk
DOUBTFUL_RATIO: Final = 64  # of the longer to the shorter side: blocks reach beyond the edge of so narrow a picture

# The beginnings of segments that Pillow joins or parses.
_READ_SEGMENTS: Final = (b"Exif\0\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"MPF\0")
_NO_FILL: Final = re.compile(rb"[^\xff]")


def matches(data: bytes) -> bool:
    """Tell whether a file begins as a JPEG."""
    return data.startswith(b"\xff\xd8\xff")


def walk(data: bytes, found: Cost) -> None:
    """Walk the markers (ITU-T T.81, B.1.1): to the first scan as Pillow does, from there to the end as libjpeg does."""
    offset, junk, tables = 2, 0, 0
    while True:
        begin = data.find(b"\xff", offset)
        code = _NO_FILL.search(data, begin + 1) if begin >= 0 else None
        kind = data[code.start()] if code else 0
        offset, skipped = (code.end(), code.end() - offset - 2) if code else (len(data), len(data) - offset)
        has_length = (0xC0 <= kind <= 0xCF and kind != 0xC8) or 0xDA <= kind <= 0xEF or kind == 0xFE
        junk += skipped + 2 * (not has_length)
        if junk > MAX_JUNK:
            raise flood(f"more than {MAX_JUNK} bytes between its segments")
        if code is None:
            raise IndexError
        if not has_length:
            continue
        (size,) = struct.unpack_from(">H", data, offset)
        if kind == 0xDA:
            found.doubtful |= junk + tables > DOUBTFUL_BYTES
            _walk_scans(data, offset + size, found)
            return
        if kind in (0xC4, 0xCC, 0xDB):
            tables += size + 2
            if tables > MAX_TABLES:
                raise flood(f"more than {MAX_TABLES} bytes of tables")
        elif kind <= 0xCF:
            height, width = struct.unpack_from(">HH", data, offset + 3)
            found.pixels = max(found.pixels, height * width)
            found.doubtful |= kind > 0xC2 or max(height, width) > DOUBTFUL_RATIO * min(height, width)
            found.count(0)
        elif data.startswith(_READ_SEGMENTS, offset + 2):
            found.count(size)
        else:
            found.count(0, skipped=size)
        offset += size


def _walk_scans(data: bytes, offset: int, found: Cost) -> None:
    """Count the scans; the data of the first begins at `offset`. libjpeg stops at EOI and at any unknown marker."""
    found.scan()
    markers = Markers(data)
    while True:
        offset = markers.next(offset) + 2
        kind = data[offset - 1]
        if kind == 0x01:  # TEM, which has no length; libjpeg skips it
            found.add(MIN_SCAN, "too many markers")
            continue
        if kind < 0xC0 or kind in (0xC8, 0xD8, 0xD9) or 0xF0 <= kind <= 0xFD:
            found.doubtful |= kind != 0xD9
            return
        (size,) = struct.unpack_from(">H", data, offset)
        offset += size
        if kind == 0xDA:
            found.scan()
        elif kind >= 0xE0:
            found.count(0, skipped=size)
        else:
            found.add(MIN_SCAN, "too many tables")


class Markers:
    """Finds markers in the data of scans: 0xFF followed by a byte that is not a stuffed zero, a restart or fill."""

    BLOCK: Final = 1 << 20  # bytes that are searched at a time

    def __init__(self, data: bytes) -> None:
        self._bytes = np.frombuffer(data, np.uint8)
        self._block = -1
        self._offsets: npt.NDArray[np.intp] = np.empty(0, np.intp)

    def next(self, offset: int) -> int:
        """Return the offset of the first marker at or after `offset`; raises IndexError when there is none."""
        while offset < len(self._bytes) - 1:
            if offset // self.BLOCK != self._block:
                self._search(offset // self.BLOCK)
            index = int(np.searchsorted(self._offsets, offset))
            if index < len(self._offsets):
                return int(self._offsets[index])
            offset = (self._block + 1) * self.BLOCK
        raise IndexError

    def _search(self, block: int) -> None:
        self._block = block
        part = self._bytes[block * self.BLOCK : (block + 1) * self.BLOCK + 1]
        offsets = np.flatnonzero(part[:-1] == 0xFF)
        after = part[offsets + 1]
        self._offsets = offsets[(after != 0) & (after != 0xFF) & (after & 0xF8 != 0xD0)] + block * self.BLOCK
