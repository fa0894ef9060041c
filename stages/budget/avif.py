"""AVIF: the sizes that a file names."""

from __future__ import annotations

import re
import struct
from typing import Final

from stages.budget.costs import Cost

_EXTENTS: Final = re.compile(rb"ispe\0\0\0\0(.{8})", re.DOTALL)


def matches(data: bytes) -> bool:
    """Tell whether a file begins as an AVIF."""
    return data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"mif1", b"msf1")


def walk(data: bytes, found: Cost) -> None:
    """Take the largest size in the file (ISO/IEC 23008-12, 6.5.3): of the picture, its tiles or its alpha channel."""
    for extent in _EXTENTS.finditer(data):
        found.count(0)
        width, height = struct.unpack(">II", extent[1])
        found.pixels = max(found.pixels, width * height)
