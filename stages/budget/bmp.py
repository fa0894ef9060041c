"""BMP: the header."""

from __future__ import annotations

import struct
from typing import Final

from stages.budget.costs import Cost

RLE_PIXEL, RLE_BYTE = 200, 400
"""Work per pixel and per byte of run-length encoding, which Pillow decodes in Python."""
_RLE: Final = (1, 2)  # values of the header's compression: 8 and 4 bits a pixel


def matches(data: bytes) -> bool:
    """Tell whether a file begins as a BMP."""
    return data.startswith(b"BM")


def walk(data: bytes, found: Cost) -> None:
    """Read the header; only run-length encoding costs more than its pixels."""
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        compression = 0
    else:
        width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    found.pixels = abs(width) * abs(height)
    if compression in _RLE:
        found.add(found.pixels * RLE_PIXEL + len(data) * RLE_BYTE, "too many run-length encoded pixels")
