"""GIF: the blocks before the first frame."""

from __future__ import annotations

import struct
from typing import Final

from stages.budget.costs import MAX_JUNK, Cost, flood

MAX_BLOCKS: Final = 20_000  # sub-blocks of extensions: 4 MB are 16,000


def matches(data: bytes) -> bool:
    """Tell whether a file begins as a GIF."""
    return data.startswith((b"GIF87a", b"GIF89a"))


def walk(data: bytes, found: Cost) -> None:
    """Walk the blocks (GIF89a) to the first frame, which is the only one that is decoded."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    offset, junk, blocks = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0), 0, 0
    while True:
        kind = data[offset]
        if kind == 0x2C:
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, offset + 1)
            found.pixels = max(width, left + frame_width) * max(height, top + frame_height)
            return
        if kind == 0x3B:
            return
        offset += 1
        if kind != 0x21:
            junk += 1
            if junk > MAX_JUNK:
                raise flood(f"more than {MAX_JUNK} bytes between its blocks")
            continue
        begin = offset = offset + 1
        while data[offset]:
            offset += data[offset] + 1
            blocks += 1
            if blocks > MAX_BLOCKS:
                raise flood(f"more than {MAX_BLOCKS} blocks of metadata")
        offset += 1
        found.count(offset - begin)
