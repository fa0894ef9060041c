"""The cost of decoding an encoded picture, computed from the structure of its file before anything decodes it.

    bytes --cost--> Cost: format, pixels, work --> a thread, a process, or a refusal

Each module here walks the files of one format. A walk goes where Pillow's own parser would go, counts what that parser
would have to do, and stops where the file ends or makes no sense. Whether a file is sound is decided by the decoder;
until then the cost of a broken file is in doubt. Files that only waste time (thousands of scans, fill bytes, floods of
metadata, a second colour profile) are refused here.

Python loops run over segments only, and their number is limited. Byte-by-byte searches run in C.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from stages.budget import avif, bmp, gif, jpeg, png, tiff, webp
from stages.budget.costs import MAX_METADATA, Cost
from stages.serving import RefusalError

__all__ = ["FORMATS", "MAX_METADATA", "Cost", "cost"]

_WALKS: Final[tuple[tuple[str, Callable[[bytes], bool], Callable[[bytes, Cost], None]], ...]] = (
    ("JPEG", jpeg.matches, jpeg.walk),
    ("PNG", png.matches, png.walk),
    ("WEBP", webp.matches, webp.walk),
    ("GIF", gif.matches, gif.walk),
    ("BMP", bmp.matches, bmp.walk),
    ("TIFF", tiff.matches, tiff.walk),
    ("AVIF", avif.matches, avif.walk),
)
FORMATS: Final = tuple(name for name, _, _ in _WALKS)


def cost(data: bytes) -> Cost:
    """Return the cost of decoding a file.

    Raises:
        RefusalError: `image_too_large` when it costs more than any picture may, `image_undecodable` when it is in none
            of `FORMATS`.

    """
    name, walk = next(((name, walk) for name, matches, walk in _WALKS if matches(data)), ("", None))
    if walk is None:
        formats = ", ".join(FORMATS)
        raise RefusalError("image_undecodable", f"The data is not an image in one of the formats {formats}.")
    found = Cost(name)
    try:
        walk(data, found)
    except (struct.error, IndexError):  # the file ends here
        found.doubtful = True
    return found
