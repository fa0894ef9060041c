"""The cost of one picture as a walk counts it, and the limits that hold for all formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stages.serving import RefusalError

MAX_WORK: Final = 1_500_000_000
"""Limit of a picture's work, in pixels of one JPEG scan: 0.8 s on a core that decodes an empty scan of 16 megapixels in
8.6 ms."""
MAX_SEGMENTS: Final = 1_000
MAX_METADATA: Final = 4_000_000  # bytes that a parser reads, joins or unpacks
MAX_SKIPPED: Final = 16_000_000  # bytes of a JPEG's segments that are only skipped: depth maps, sound, extended XMP
MAX_JUNK: Final = 65_536  # meaningless bytes between segments, which Pillow skips one by one
MIN_SCAN: Final = 65_536  # pixels: the cost of a scan of the smallest picture
# Work per pixel by format, measured on noise, which is the worst case; for JPEG in addition to its scans.
PIXEL_WORK: Final = {"JPEG": 5, "PNG": 12, "WEBP": 24, "GIF": 6, "BMP": 6, "TIFF": 24, "AVIF": 24}


@dataclass
class Cost:
    """The cost of decoding one picture.

    Attributes:
        format: one of `stages.budget.FORMATS`.
        pixels: of the stored picture, as its header promises; 0 when the walk found none.
        scans: how often a decoder goes over a JPEG's pixels.
        extra: work beyond the format's work per pixel.
        segments: number of pieces of metadata.
        metadata: bytes of metadata that a parser reads.
        skipped: bytes of metadata that a parser only skips.
        doubtful: whether the file holds, or may hold, data that costs more than was counted.

    """

    format: str
    pixels: int = 0
    scans: int = 0
    extra: int = 0
    segments: int = 0
    metadata: int = 0
    skipped: int = 0
    doubtful: bool = False

    @property
    def work(self) -> int:
        """The total, in pixels of one JPEG scan."""
        return self.pixels * PIXEL_WORK.get(self.format, 0) + self.extra

    def scan(self) -> None:
        """Add one scan of a JPEG; raises RefusalError when there are too many."""
        self.scans += 1
        self.extra += max(self.pixels, MIN_SCAN)
        if self.scans > 1 and self.extra > MAX_WORK:
            raise flood(f"{self.scans} scans or more of {self.pixels / 1e6:.3g} megapixels")

    def add(self, work: int, cause: str) -> None:
        """Add work; raises RefusalError, naming the cause, when the total is too much."""
        self.extra += work
        if self.extra > MAX_WORK:
            raise flood(cause)

    def count(self, size: int, skipped: int = 0) -> None:
        """Add one piece of metadata: `size` bytes to read, `skipped` bytes to skip.

        Raises:
            RefusalError: `image_too_large` when there are too many pieces or bytes.

        """
        self.segments += 1
        self.metadata += size
        self.skipped += skipped
        if self.segments > MAX_SEGMENTS:
            raise flood(f"more than {MAX_SEGMENTS} segments of metadata")
        for total, limit in ((self.metadata, MAX_METADATA), (self.skipped, MAX_SKIPPED)):
            if total > limit:
                raise flood(f"more than {limit // 1_000_000} MB of metadata")


def flood(excess: str) -> RefusalError:
    """Return the refusal of a picture that has too much of something."""
    return RefusalError("image_too_large", f"The image has {excess}, which takes too long to decode.")
