"""What decoding an encoded picture will cost, read from the structure of its file before anything decodes it.

    bytes --cost--> Cost: format, pixels, work --> a thread, a process, or a refusal

One walk for each format. A walk goes where Pillow's own parser would go, counts what that would have to do, and ends
early where the file ends or makes no sense: whether a file is sound is for the decoder to say, and until it has said
so the file's cost is in doubt. What only costs time (scans by the thousand, fill bytes, floods of metadata, a second
colour profile) is refused here.

Loops in Python run over segments, of which there may be few; whatever there may be much of is searched in C.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from stages.serving import RefusalError

MAX_WORK: Final = 1_500_000_000
"""Scans x pixels: 0.8 s of a core that takes 8.6 ms for an empty scan of 16 megapixels. The unit of all work here."""
MAX_SEGMENTS: Final = 1_000
MAX_METADATA: Final = 4_000_000  # bytes that a parser reads, joins or unpacks
MAX_SKIPPED: Final = 16_000_000  # bytes of a JPEG's segments that are only skipped: depth maps, sound, extended XMP
MAX_JUNK: Final = 65_536  # bytes between segments that mean nothing; Pillow skips them one by one
MAX_TABLES: Final = 65_536  # bytes of a JPEG's tables before its first scan, which Pillow reads; sound: 2,000
MAX_BLOCKS: Final = 20_000  # sub-blocks of a GIF's extensions: 4 MB are 16,000
MAX_STRIPS: Final = 200_000  # of a TIFF: 50 megapixels in tiles of 16 x 16
FEW_BYTES: Final = 4_096  # of a JPEG's tables and junk, or of a PNG's packed text and profile, which unpack to 4 MB
FEW_PIXELS: Final = 16_384  # that a lossless WebP may have: every 16 may have codes of their own, and cost 8 us
THIN: Final = 64  # times as long as wide; a JPEG's blocks reach beyond such a picture's edge
LEAST_SCAN: Final = 65_536  # pixels: a scan costs as much as these, however small the picture
# Work of one pixel by format, measured on noise, the worst there is; JPEG's beside its scans.
PIXEL_WORK: Final = {"JPEG": 5, "PNG": 12, "WEBP": 24, "GIF": 6, "BMP": 6, "TIFF": 24, "AVIF": 24}
RLE_PIXEL, RLE_BYTE = 200, 400  # Pillow decodes BMP's run lengths in Python

# How the segments begin that Pillow joins or parses.
_READ_SEGMENTS: Final = (b"Exif\0\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"MPF\0")
_NO_FILL: Final = re.compile(rb"[^\xff]")
_EXTENTS: Final = re.compile(rb"ispe\0\0\0\0(.{8})", re.DOTALL)


@dataclass
class Cost:
    """What decoding one picture takes.

    Attributes:
        format: one of `stages.decoding.FORMATS`; empty when it is none of them.
        pixels: of the stored picture, as its header promises; 0 when the walk found none.
        scans: how often a decoder goes over a JPEG's pixels.
        extra: work beyond what the format takes for its pixels.
        segments: how many pieces of metadata there are.
        metadata: how many bytes of these a parser reads.
        skipped: how many bytes of these it only skips.
        doubtful: whether the file holds, or may hold, what costs more than counted here.

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
        """All in all, in pixels of one JPEG scan."""
        return self.pixels * PIXEL_WORK.get(self.format, 0) + self.extra

    def scan(self) -> None:
        """Add one scan of a JPEG; raises RefusalError at one too many."""
        self.scans += 1
        self.extra += max(self.pixels, LEAST_SCAN)
        if self.scans > 1 and self.extra > MAX_WORK:
            raise _flood(f"{self.scans} scans or more of {self.pixels / 1e6:.3g} megapixels")

    def add(self, work: int, what: str) -> None:
        """Add work, caused by `what`; raises RefusalError when it is too much."""
        self.extra += work
        if self.extra > MAX_WORK:
            raise _flood(what)

    def count(self, size: int, skipped: int = 0) -> None:
        """Add one piece of metadata of so many bytes to read, or to skip; raises RefusalError at one too many."""
        self.segments += 1
        self.metadata += size
        self.skipped += skipped
        if self.segments > MAX_SEGMENTS:
            raise _flood(f"more than {MAX_SEGMENTS} segments of metadata")
        for size, most in ((self.metadata, MAX_METADATA), (self.skipped, MAX_SKIPPED)):
            if size > most:
                raise _flood(f"more than {most // 1_000_000} MB of metadata")


def cost(data: bytes) -> Cost:
    """Return what decoding a file costs.

    Raises:
        RefusalError: `image_too_large` when it costs more than any picture may, `image_undecodable` when it is in none
            of `FORMATS`.

    """
    name, walk = next(((name, walk) for name, begins, walk in _WALKS if begins(data)), ("", None))
    if walk is None:
        raise RefusalError("image_undecodable", f"The data is no image in one of the formats {', '.join(FORMATS)}.")
    found = Cost(name)
    try:
        walk(data, found)
    except (struct.error, IndexError):  # the file ends here
        found.doubtful = True
    return found


def _flood(what: str) -> RefusalError:
    return RefusalError("image_too_large", f"The image has {what}; that takes too long to decode.")


def _jpeg(data: bytes, found: Cost) -> None:
    """Walk the markers (ITU-T T.81, B.1.1): as Pillow to the first scan, as libjpeg from there to the end."""
    place, junk, tables = 2, 0, 0
    while True:
        begin = data.find(b"\xff", place)
        code = _NO_FILL.search(data, begin + 1) if begin >= 0 else None
        kind = data[code.start()] if code else 0
        place, skipped = (code.end(), code.end() - place - 2) if code else (len(data), len(data) - place)
        has_length = (0xC0 <= kind <= 0xCF and kind != 0xC8) or 0xDA <= kind <= 0xEF or kind == 0xFE
        junk += skipped + 2 * (not has_length)
        if junk > MAX_JUNK:
            raise _flood(f"more than {MAX_JUNK} bytes between its segments")
        if code is None:
            raise IndexError
        if not has_length:
            continue
        (size,) = struct.unpack_from(">H", data, place)
        if kind == 0xDA:
            found.doubtful |= junk + tables > FEW_BYTES
            _jpeg_scans(data, place + size, found)
            return
        if kind in (0xC4, 0xCC, 0xDB):
            tables += size + 2
            if tables > MAX_TABLES:
                raise _flood(f"more than {MAX_TABLES} bytes of tables")
        elif kind <= 0xCF:
            height, width = struct.unpack_from(">HH", data, place + 3)
            found.pixels = max(found.pixels, height * width)
            found.doubtful |= kind > 0xC2 or max(height, width) > THIN * min(height, width)
            found.count(0)
        elif data.startswith(_READ_SEGMENTS, place + 2):
            found.count(size)
        else:
            found.count(0, skipped=size)
        place += size


def _jpeg_scans(data: bytes, place: int, found: Cost) -> None:
    """Count the scans; the first one's data begins at `place`. What libjpeg does not know ends its work as EOI does."""
    found.scan()
    markers = _Markers(data)
    while True:
        place = markers.next(place) + 2
        kind = data[place - 1]
        if kind == 0x01:  # TEM, which has no length; libjpeg skips it
            found.add(LEAST_SCAN, "too many markers")
            continue
        if kind < 0xC0 or kind in (0xC8, 0xD8, 0xD9) or 0xF0 <= kind <= 0xFD:
            found.doubtful |= kind != 0xD9
            return
        (size,) = struct.unpack_from(">H", data, place)
        place += size
        if kind == 0xDA:
            found.scan()
        elif kind >= 0xE0:
            found.count(0, skipped=size)
        else:
            found.add(LEAST_SCAN, "too many tables")


class _Markers:
    """Where there are markers in the data of scans: 0xFF and what is neither stuffed zero, restart nor fill."""

    BLOCK: Final = 1 << 20

    def __init__(self, data: bytes) -> None:
        self._bytes = np.frombuffer(data, np.uint8)
        self._block = -1
        self._places: npt.NDArray[np.intp] = np.empty(0, np.intp)

    def next(self, place: int) -> int:
        """Return where the next marker is, from `place` on; raises IndexError when there is none."""
        while place < len(self._bytes) - 1:
            if place // self.BLOCK != self._block:
                self._look(place // self.BLOCK)
            index = int(np.searchsorted(self._places, place))
            if index < len(self._places):
                return int(self._places[index])
            place = (self._block + 1) * self.BLOCK
        raise IndexError

    def _look(self, block: int) -> None:
        self._block = block
        part = self._bytes[block * self.BLOCK : (block + 1) * self.BLOCK + 1]
        places = np.flatnonzero(part[:-1] == 0xFF)
        after = part[places + 1]
        self._places = places[(after != 0) & (after != 0xFF) & (after & 0xF8 != 0xD0)] + block * self.BLOCK


def _png(data: bytes, found: Cost) -> None:
    """Walk the chunks (W3C PNG, third edition, 5.3) to the end, or to the second frame of an animation.

    Those of pixels and of an animation's frames are no metadata.
    """
    place, pieces, profiles, packed = 8, 0, 0, 0
    frames: list[int] = []  # as each acTL before the pixels has it
    has_pixels = False
    while True:
        size, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IHDR":
            width, height, depth = struct.unpack_from(">IIB", data, place + 8)
            found.pixels = max(found.pixels, width * height)
            found.extra += width * height * PIXEL_WORK["PNG"] if depth == 16 else 0
        elif kind in (b"IDAT", b"fdAT", b"fcTL"):
            if kind == b"fcTL" and has_pixels and len(frames) == 1 and 1 < frames[0] <= 1 << 31:
                return  # as Pillow, where it takes the file for an animation
            has_pixels |= kind == b"IDAT"
            pieces += 1
            if pieces > MAX_SEGMENTS + len(data) // 512:
                raise _flood("its pixels in too many pieces")
        elif kind == b"IEND":
            return
        else:
            if kind == b"acTL" and not has_pixels:
                frames += struct.unpack_from(">I", data, place + 8)
            if kind in (b"iCCP", b"zTXt") or (kind == b"iTXt" and data[data.find(b"\0", place + 8) + 1]):
                packed += size
                found.doubtful |= packed > FEW_BYTES
            profiles += kind == b"iCCP"
            if profiles > 1:
                raise _flood("more than one colour profile")
            found.count(size)
        place += size + 12


def _gif(data: bytes, found: Cost) -> None:
    """Walk the blocks (GIF89a) to the first frame, which is the only one that is decoded."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place, junk, blocks = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0), 0, 0
    while True:
        kind = data[place]
        if kind == 0x2C:
            left, top, wide, high = struct.unpack_from("<HHHH", data, place + 1)
            found.pixels = max(width, left + wide) * max(height, top + high)
            return
        if kind == 0x3B:
            return
        place += 1
        if kind != 0x21:
            junk += 1
            if junk > MAX_JUNK:
                raise _flood(f"more than {MAX_JUNK} bytes between its blocks")
            continue
        begin = place = place + 1
        while data[place]:
            place += data[place] + 1
            blocks += 1
            if blocks > MAX_BLOCKS:
                raise _flood(f"more than {MAX_BLOCKS} blocks of metadata")
        place += 1
        found.count(place - begin)


def _webp(data: bytes, found: Cost) -> None:
    """Walk the chunks (RFC 9649, 2.3). Only the first frame of an animation is decoded; the others are looked at."""
    (size,) = struct.unpack_from("<I", data, 4)
    place, end = 12, size + 8  # what follows is not of the picture
    while place < end:
        kind, size = struct.unpack_from("<4sI", data, place)
        width = height = 0
        if kind == b"VP8X":
            width, height = (int.from_bytes(data[place + at : place + at + 3], "little") + 1 for at in (12, 15))
        elif kind == b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, place + 14))
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, place + 9)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        found.pixels = max(found.pixels, width * height)
        if kind == b"ANMF":
            found.doubtful = True
            found.add(LEAST_SCAN, "too many frames")
        else:
            found.doubtful |= kind in (b"VP8L", b"ALPH") and found.pixels > FEW_PIXELS
            found.count(0 if kind in (b"VP8 ", b"VP8L", b"ALPH") else size)
        place += 8 + size + (size & 1)


def _bmp(data: bytes, found: Cost) -> None:
    """Read the header; only run lengths cost more than their pixels."""
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        compression = 0
    else:
        width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    found.pixels = abs(width) * abs(height)
    if compression in (1, 2):
        found.add(found.pixels * RLE_PIXEL + len(data) * RLE_BYTE, "too many pixels in run lengths")


_TIFF_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}
_TIFF_DATA: Final = (273, 279, 324, 325)  # where strips and tiles are, and their sizes
_TIFF_DIRECTORIES: Final = (34665, 34853, 40965)  # EXIF, GPS, interoperability


def _tiff(data: bytes, found: Cost) -> None:
    """Read the first directory (TIFF 6.0, section 2; BigTIFF), and how long those are to which it points.

    How large its tags are is not counted: Photoshop keeps all layers in one, and a process reads them.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2 if order == "<" else 3] == 43
    (place,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    width = height = 0
    for tag, kind, count, value in _entries(data, place, order, big):
        found.count(0)
        if tag in _TIFF_DATA and count > MAX_STRIPS:
            raise _flood(f"more than {MAX_STRIPS} strips or tiles")
        if tag in (256, 257):
            number = int.from_bytes(value[: _TIFF_SIZES.get(kind, 4)], "little" if order == "<" else "big")
            width, height = (number, height) if tag == 256 else (width, number)
            found.pixels = width * height
        elif tag in _TIFF_DIRECTORIES:
            (inner,) = struct.unpack(f"{order}{'Q' if big else 'I'}", value)
            for _ in _entries(data, inner, order, big):
                found.count(0)


def _entries(data: bytes, place: int, order: str, big: bool) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield tag, type, count and value (or its offset) of a directory's entries, as far as the file goes."""
    head, form = (f"{order}Q", f"{order}HHQ8s") if big else (f"{order}H", f"{order}HHI4s")
    if place >= len(data):
        return
    (count,) = struct.unpack_from(head, data, place)
    place += struct.calcsize(head)
    step = struct.calcsize(form)
    for index in range(min(count, (len(data) - place) // step)):
        yield struct.unpack_from(form, data, place + index * step)


def _avif(data: bytes, found: Cost) -> None:
    """Take the largest of the sizes that it names (ISO/IEC 23008-12, 6.5.3): of the picture, its tiles, its alpha."""
    for extent in _EXTENTS.finditer(data):
        found.count(0)
        width, height = struct.unpack(">II", extent[1])
        found.pixels = max(found.pixels, width * height)


_WALKS: Final[tuple[tuple[str, Callable[[bytes], bool], Callable[[bytes, Cost], None]], ...]] = (
    ("JPEG", lambda data: data.startswith(b"\xff\xd8\xff"), _jpeg),
    ("PNG", lambda data: data.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    ("WEBP", lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", _webp),
    ("GIF", lambda data: data.startswith((b"GIF87a", b"GIF89a")), _gif),
    ("BMP", lambda data: data.startswith(b"BM"), _bmp),
    ("TIFF", lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"MM\0+", b"II+\0"), _tiff),
    ("AVIF", lambda data: data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"mif1", b"msf1"), _avif),
)
FORMATS: Final = tuple(name for name, _, _ in _WALKS)
