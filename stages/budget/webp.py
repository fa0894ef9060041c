"""WebP: the chunks of a file."""

from __future__ import annotations

import struct
from typing import Final

from stages.budget.costs import MIN_SCAN, Cost

DOUBTFUL_PIXELS: Final = 16_384  # of a lossless picture: every 16 pixels may have codes of their own, which cost 8 us


def matches(data: bytes) -> bool:
    """Tell whether a file begins as a WebP."""
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def walk(data: bytes, found: Cost) -> None:
    """Walk the chunks (RFC 9649, 2.3). The first frame of an animation is decoded, its other frames are only parsed."""
    (size,) = struct.unpack_from("<I", data, 4)
    offset, end = 12, size + 8  # bytes behind the end do not belong to the picture
    while offset < end:
        kind, size = struct.unpack_from("<4sI", data, offset)
        width = height = 0
        if kind == b"VP8X":
            width, height = (int.from_bytes(data[offset + at : offset + at + 3], "little") + 1 for at in (12, 15))
        elif kind == b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, offset + 14))
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, offset + 9)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        found.pixels = max(found.pixels, width * height)
        if kind == b"ANMF":
            found.doubtful = True
            found.add(MIN_SCAN, "too many frames")
        else:
            found.doubtful |= kind in (b"VP8L", b"ALPH") and found.pixels > DOUBTFUL_PIXELS
            found.count(0 if kind in (b"VP8 ", b"VP8L", b"ALPH") else size)
        offset += 8 + size + (size & 1)
