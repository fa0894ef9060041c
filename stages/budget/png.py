"""PNG: the chunks of a file."""

from __future__ import annotations

import struct
from typing import Final

from stages.budget.costs import MAX_SEGMENTS, PIXEL_WORK, Cost, flood

DOUBTFUL_PACKED: Final = 4_096  # bytes of packed text and profile, which unpack to 4 MB


def matches(data: bytes) -> bool:
    """Tell whether a file begins as a PNG."""
    return data.startswith(b"\x89PNG\r\n\x1a\n")


def walk(data: bytes, found: Cost) -> None:
    """Walk the chunks (W3C PNG, third edition, 5.3) to the end, or to the second frame of an animation.

    Chunks of pixels and of an animation's frames do not count as metadata.
    """
    offset, pieces, profiles, packed = 8, 0, 0, 0
    frames: list[int] = []  # the frame count of each acTL chunk before the pixels
    has_pixels = False
    while True:
        size, kind = struct.unpack_from(">I4s", data, offset)
        if kind == b"IHDR":
            width, height, depth = struct.unpack_from(">IIB", data, offset + 8)
            found.pixels = max(found.pixels, width * height)
            found.extra += width * height * PIXEL_WORK["PNG"] if depth == 16 else 0
        elif kind in (b"IDAT", b"fdAT", b"fcTL"):
            if kind == b"fcTL" and has_pixels and len(frames) == 1 and 1 < frames[0] <= 1 << 31:
                return  # Pillow takes the file for an animation under the same conditions
            has_pixels |= kind == b"IDAT"
            pieces += 1
            if pieces > MAX_SEGMENTS + len(data) // 512:
                raise flood("its pixels in too many pieces")
        elif kind == b"IEND":
            return
        else:
            if kind == b"acTL" and not has_pixels:
                frames += struct.unpack_from(">I", data, offset + 8)
            if kind in (b"iCCP", b"zTXt") or (kind == b"iTXt" and data[data.find(b"\0", offset + 8) + 1]):
                packed += size
                found.doubtful |= packed > DOUBTFUL_PACKED
            profiles += kind == b"iCCP"
            if profiles > 1:
                raise flood("more than one colour profile")
            found.count(size)
        offset += size + 12
