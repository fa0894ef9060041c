"""Small files that cost much work: they claim, repeat or unpack to far more than their own bytes.

Each is made when it is asked for. `expected` are the codes of the answers that are right; "served" where a decoder that
is any good gives a picture.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from PIL import Image, MpoImagePlugin

MB: Final = 1_000_000
MPO: Final = MpoImagePlugin.MpoImageFile.format  # by its plugin, which other tests of this process may have left out
REFUSED: Final = {"image_too_large", "image_undecodable"}
TOO_LARGE: Final = {"image_too_large"}
ANY: Final = {"served", *REFUSED}


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(width: int = 64, height: int = 48, **options: Any) -> bytes:
    """Return a plain JPEG."""
    return save(Image.new("RGB", (width, height), (200, 10, 10)), "JPEG", **options)


def segments(file: bytes) -> list[bytes]:
    """Cut a JPEG into its segments, each scan with its data."""
    cuts, place = [0], 2
    while file[place + 1] != 0xD9:
        cuts.append(place)
        kind = file[place + 1]
        place += 2 + int.from_bytes(file[place + 2 : place + 4], "big")
        while kind == 0xDA and (file[place] != 0xFF or file[place + 1] in (0, *range(0xD0, 0xD8))):
            place += 1
    return [file[one:other] for one, other in zip(cuts, [*cuts[1:], place], strict=True)]


def scans(width: int, height: int, size: int, before: bytes = b"") -> bytes:
    """Return a progressive JPEG of `size` bytes that repeats its last scan; `before` goes before the second scan."""
    whole = save(Image.new("L", (width, height), 128), "JPEG", progressive=True)
    parts = segments(whole)
    starts = [index for index, part in enumerate(parts) if part[1] == 0xDA]
    last = b"".join(parts[starts[-2] + 1 :])
    parts.insert(starts[0] + 1, before)
    return b"".join(parts) + last * ((size - len(whole)) // len(last)) + b"\xff\xd9"


def in_header(flood: bytes) -> bytes:
    """Return a JPEG with bytes inserted after its start marker."""
    file = jpeg()
    return file[:2] + flood + file[2:]


def segment(kind: int, content: bytes) -> bytes:
    """Return a JPEG's segment."""
    return struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content


def between_scans(flood: bytes) -> bytes:
    """Return a progressive JPEG with bytes inserted before its second scan."""
    parts = segments(jpeg(progressive=True))
    second = [index for index, part in enumerate(parts) if part[1] == 0xDA][1]
    return b"".join([*parts[:second], flood, *parts[second:]]) + b"\xff\xd9"


def directory(count: int, size: int = 0, tag: int = 40_000) -> bytes:
    """Return a TIFF structure, as in EXIF, with many entries that all read the same bytes."""
    entry = b"".join(
        struct.pack(">HHII", (tag + index) & 0xFFFF, 7, size or 1, 8 if size else 0) for index in range(count)
    )
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", count) + entry + b"\0\0\0\0"


def exif(structure: bytes) -> bytes:
    """Return EXIF in as many JPEG segments as it needs."""
    pieces = [structure[at : at + 65_000] for at in range(0, len(structure), 65_000)]
    return b"".join(segment(0xE1, b"Exif\0\0" + piece) for piece in pieces)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG's chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int = 10, height: int = 10, *, depth: int = 8, colour: int = 0, data: bytes = b"", extra: bytes = b""
) -> bytes:
    """Return a PNG; its pixels are black, or what `data` unpacks to."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    data = data or zlib.compress(bytes(height * (width * depth * channels // 8 + 1)), 9)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), extra, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@lru_cache(8)
def zeros(size: int) -> bytes:
    """Return bytes that unpack to this many zeros."""
    packer = zlib.compressobj(9)
    block = bytes(MB)
    return b"".join([*(packer.compress(block) for _ in range(size // MB)), packer.flush()])


def gif(canvas: tuple[int, int], frame: tuple[int, int], before: bytes = b"", data: bytes = b"\x08\x01\0\0") -> bytes:
    """Return a GIF of one frame."""
    head = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + before + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + data + b";"


def bmp(width: int, height: int, compression: int, data: bytes) -> bytes:
    """Return a BMP of 8 bits a pixel."""
    sizes = struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 1078, 40, width, height, 1, 8, compression, 0, 0, 0, 256, 0)
    return b"BM" + sizes + bytes(1024) + data


GREY: Final = {256: (4, 10), 257: (4, 10), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 200), 277: (3, 1)} | {
    278: (4, 10),
    279: (4, 100),
}


def tiff(extra: list[tuple[int, int, int, int]] | None = None, data: bytes = bytes(400), **changes: int) -> bytes:
    """Return a grey TIFF of 10 x 10; `t256=7` changes a tag's value, and `extra` adds tag, type, count and value."""
    changed = {int(name[1:]): value for name, value in changes.items()}
    entries = [(tag, kind, 1, changed.get(tag, value)) for tag, (kind, value) in GREY.items()]
    new = {tag for tag, *_ in extra or []}
    entries = sorted([entry for entry in entries if entry[0] not in new] + (extra or []))
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(entries))
        + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        + bytes(4)
        + data
    )


def webp_frames(count: int) -> bytes:
    """Return a WebP of many frames with the same bytes."""
    first = save(Image.new("RGB", (16, 16)), "WEBP", lossless=True)
    frame = bytes(6) + bytes([15, 0, 0, 15, 0, 0, 100, 0, 0, 0]) + first[12:]
    frames = b"ANMF" + struct.pack("<I", len(frame)) + frame
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0, 15, 0, 0, 15, 0, 0])
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + frames * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunks(count: int) -> bytes:
    """Return a WebP with many unknown chunks."""
    first = save(Image.new("RGB", (16, 16)), "WEBP", lossless=True)
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([0, 0, 0, 0, 15, 0, 0, 15, 0, 0])
    body += first[12:] + b"junk\0\0\0\0" * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


class _Bits:
    """A stream of bits, lowest first, as lossless WebP has it."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def put(self, *fields: tuple[int, int]) -> None:
        """Add values, each with its number of bits."""
        self._parts += (f"{value:0{count}b}"[::-1] for value, count in fields)

    def packed(self) -> bytes:
        bits = "".join(self._parts).encode()
        return np.packbits(np.frombuffer(bits, np.uint8) - 48, bitorder="little").tobytes()

    def put_code_of_one(self, symbol: int = 0) -> None:
        """Add a Huffman code of one symbol, which takes no bits."""
        self.put((1, 1), (0, 1), (symbol > 1, 1), (symbol, 8 if symbol > 1 else 1))

    def put_code_of_bytes(self, symbols: int) -> None:
        """Add a Huffman code of which 256 symbols have 8 bits each, and those beyond none."""
        lengths = {0: 0, 1: 1, 11: 1}  # in the order of RFC 9649, 3.7.2.1.2: 17, 18, ... 8: a run of zeros, and eight
        self.put((0, 1), (12 - 4, 4), *((lengths.get(place, 0), 3) for place in range(12)), (0, 1))
        self.put(*[(0, 1)] * 256)
        if symbols > 256:
            self.put((1, 1), (symbols - 256 - 11, 7))


def webp_codes(width: int, height: int) -> bytes:
    """Return a lossless WebP in which every 4 x 4 pixels have Huffman codes of their own (RFC 9649, 3.7.2.2)."""
    bits = _Bits()
    bits.put((0x2F, 8), (width - 1, 14), (height - 1, 14), (0, 1), (0, 3), (0, 1), (0, 1), (1, 1), (0, 3), (0, 1))
    bits.put_code_of_bytes(280)
    bits.put_code_of_bytes(256)
    for _ in range(3):
        bits.put_code_of_one()
    groups = -(-width // 4) * -(-height // 4)
    turned = [int(f"{value:08b}"[::-1], 2) for value in range(256)]
    for group in range(groups):
        bits.put((turned[group & 255], 8), (turned[group >> 8], 8))
    for _ in range(groups * 5):
        bits.put_code_of_one()
    data = bits.packed() + bytes(8)
    data += bytes(len(data) & 1)
    return b"RIFF" + struct.pack("<I", len(data) + 12) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


@lru_cache(1)
def wide_text() -> bytes:
    """Return bytes that unpack to 4 million characters of 4 bytes each."""
    return zlib.compress(b"a" * 3_990_000 + "\U0001f600".encode(), 9)


def noise(width: int, height: int, kind: str, **options: Any) -> bytes:
    """Return noise, which no format compresses."""
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    return save(Image.fromarray(pixels), kind, **options)


TILED: Final = [(322, 4, 1, 65_520), (323, 4, 1, 65_520), (324, 4, 1, 200), (325, 4, 1, 100)]

BOMBS: Final[dict[str, tuple[Callable[[], bytes], set[str]]]] = {
    "jpeg scans": (lambda: scans(4000, 4000, 200_000), TOO_LARGE),
    "jpeg scans, small": (lambda: scans(64, 64, 2 * MB), TOO_LARGE),
    "jpeg scans, many": (lambda: scans(4000, 4000, 19 * MB), TOO_LARGE),
    "jpeg scans, as many as may be": (lambda: scans(4000, 4000, 7_800), {"served"}),
    "jpeg APP1": (lambda: in_header(segment(0xE1, b"Exif\0\0" + b"a" * 8) * MB), TOO_LARGE),
    "jpeg COM": (lambda: in_header(segment(0xFE, b"") * (4 * MB)), TOO_LARGE),
    "jpeg fill": (lambda: in_header(b"\xff" * 19 * MB), TOO_LARGE),
    "jpeg junk": (lambda: in_header(segment(0xFE, b"") + bytes(19 * MB)), TOO_LARGE),
    "jpeg restarts": (lambda: in_header(b"\xff\xd0" * 9 * MB), TOO_LARGE),
    "jpeg unknown": (lambda: in_header(b"\xff\xf0\xff\xff" * 4 * MB), TOO_LARGE),
    "jpeg tables": (lambda: in_header(segment(0xDB, bytes(65) * 1000) * 290), TOO_LARGE),
    "jpeg profile": (lambda: in_header(segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65_000)) * 255), TOO_LARGE),
    "jpeg scans behind TEM": (lambda: scans(4000, 4000, 200_000, b"\xff\x01"), TOO_LARGE),
    "jpeg TEM": (lambda: between_scans(b"\xff\x01" * 9 * MB), TOO_LARGE),
    "jpeg COM between scans": (lambda: between_scans(segment(0xFE, b"") * (4 * MB)), TOO_LARGE),
    "jpeg markers between scans": (lambda: between_scans(segment(0xC4, b"") * (4 * MB)), TOO_LARGE),
    "jpeg EXIF": (lambda: in_header(exif(directory(65_535))), ANY),
    "jpeg EXIF, same bytes": (lambda: in_header(exif(directory(65_535, 700_000))), ANY),
    "jpeg MP": (lambda: in_header(segment(0xE2, b"MPF\0" + directory(5_400, 60_000))), ANY),
    "jpeg trailing": (lambda: jpeg() + b"\xff" * 19 * MB, {"served"}),
    "jpeg 65535": (lambda: jpeg().replace(b"\x00\x30\x00\x40", b"\xff\xff\xff\xff"), TOO_LARGE),
    "jpeg no lines": (lambda: jpeg().replace(b"\x00\x30\x00\x40", b"\x00\x00\x00\x40"), REFUSED),
    "mpo": (
        lambda: save(Image.new("RGB", (30, 20)), MPO, save_all=True, append_images=[Image.new("L", (9, 9))] * 50),
        {"served"},
    ),
    "png 65535": (lambda: png(65_535, 65_535, colour=2, data=b"x"), TOO_LARGE),
    "png two sizes": (lambda: _png_of_two_sizes(), ANY),
    "png texts, wide": (
        lambda: png(extra=b"".join(chunk(b"iTXt", b"k%d\0\1\0\0\0" % n + wide_text()) for n in range(16))),
        REFUSED,
    ),
    "png frames": (lambda: png(extra=chunk(b"fcTL", bytes(26)) * 400_000), TOO_LARGE),
    "png 0": (lambda: png(0, 0), REFUSED),
    "png 16 bit": (lambda: png(7071, 7071, depth=16, colour=6, data=zeros(400 * MB)), ANY),
    "png text": (lambda: png(extra=chunk(b"zTXt", b"k\0\0" + zeros(100 * MB))), REFUSED),
    "png texts": (lambda: png(extra=chunk(b"iTXt", b"k\0\1\0\0\0" + zeros(MB)) * 900), REFUSED),
    "png profile": (lambda: png(extra=chunk(b"iCCP", b"k\0\0" + zeros(100 * MB))), REFUSED),
    "png profiles": (lambda: png(extra=chunk(b"iCCP", b"k\0\0" + zeros(3 * MB)) * 900), REFUSED),
    "png chunks": (lambda: png(extra=chunk(b"juNk", b"") * 1_500_000), TOO_LARGE),
    "png IDAT": (lambda: png(extra=chunk(b"IDAT", b"") * 1_500_000), TOO_LARGE),
    "png excess": (lambda: png(data=zeros(400 * MB)), ANY),
    "png EXIF": (lambda: png(extra=chunk(b"eXIf", directory(65_535, 700_000))), ANY),
    "gif canvas": (lambda: gif((65_535, 65_535), (1, 1)), TOO_LARGE),
    "gif frame": (lambda: gif((1, 1), (65_535, 65_535)), TOO_LARGE),
    "gif 0": (lambda: gif((0, 0), (0, 0)), REFUSED),
    "gif comments": (lambda: gif((9, 9), (9, 9), b"!\xfe\x01a\0" * 3 * MB), TOO_LARGE),
    "gif comment": (lambda: gif((9, 9), (9, 9), b"!\xfe" + b"\x01a" * 9 * MB + b"\0"), TOO_LARGE),
    "gif junk": (lambda: gif((9, 9), (9, 9), b"x" * 19 * MB), TOO_LARGE),
    "gif clears": (lambda: gif((9, 9), (9, 9), b"", b"\x02" + (b"\xff" + b"\x24" * 255) * 70_000 + b"\0"), ANY),
    "webp frames": (lambda: webp_frames(150_000), TOO_LARGE),
    "webp chunks": (lambda: webp_chunks(2 * MB), TOO_LARGE),
    "webp two sizes": (lambda: _webp_of_two_sizes(), {"served"}),
    "webp codes": (lambda: webp_codes(1000, 1000), ANY),
    "webp 16383": (lambda: save(Image.new("L", (16_383, 3000)), "WEBP", lossless=True, method=0), {"served"}),
    "bmp least height": (lambda: bmp(10, -(2**31), 0, bytes(400)), TOO_LARGE),
    "bmp run lengths": (lambda: bmp(7000, 7000, 1, b"\1\1" * 9 * MB), TOO_LARGE),
    "bmp moves": (lambda: bmp(1000, 1000, 1, b"\0\2\0\0" * 4 * MB), TOO_LARGE),
    "bmp line ends": (lambda: bmp(2_000_000, 1, 1, b"\1\1\0\0" * 9), ANY),
    "tiff 65535": (lambda: tiff(t256=65_535, t257=65_535), TOO_LARGE),
    "tiff tags": (lambda: tiff([(40_000 + n, 5, 1, 200) for n in range(20_000)]), TOO_LARGE),
    "tiff count": (lambda: tiff([(33_434, 5, 0xFFFFFFF, 200)]), ANY),
    "tiff tags, same bytes": (
        lambda: tiff([(40_000 + n, 5, 2_000_000, 200) for n in range(900)], bytes(19 * MB)),
        ANY,
    ),
    "tiff strips": (lambda: tiff([(273, 4, 0x3FFFFFF, 200), (279, 4, 0x3FFFFFF, 200)]), TOO_LARGE),
    "tiff bits": (lambda: tiff([(258, 3, 65_535, 8)], bytes(200_000)), REFUSED),
    "tiff samples": (lambda: tiff(t277=65_535), REFUSED),
    "tiff tile": (lambda: tiff(TILED), ANY),
    "tiff tile, packed": (lambda: tiff(TILED, t259=5), REFUSED),
    "tiff rows": (lambda: tiff(t278=0xFFFFFFFF, t259=5), REFUSED),
    "tiff deflate": (lambda: _deflated(), ANY),
    "tiff EXIF": (lambda: tiff([(34_665, 4, 1, 8)], bytes(400)), ANY),
    "tiff EXIF, many": (lambda: _many_exif(), TOO_LARGE),
    "avif 7000": (lambda: save(Image.new("L", (7000, 7000)), "AVIF", speed=10), {"served"}),
    "avif sizes": (lambda: _avif_sizes(), ANY),
    "avif cut": (lambda: b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + bytes(400), REFUSED),
}


def _deflated() -> bytes:
    packed = zeros(400 * MB)
    return tiff([(279, 4, 1, len(packed))], bytes(400) + packed, t259=8, t273=8 + 2 + 9 * 12 + 4 + 400)


def _many_exif() -> bytes:
    place = 8 + 2 + 10 * 12 + 4 + 400
    return tiff([(34_665, 4, 1, place)], bytes(400) + struct.pack("<H", 65_535) + bytes(65_535 * 12))


def _avif_sizes() -> bytes:
    file = save(Image.new("RGB", (64, 64)), "AVIF", speed=10)
    place = file.index(b"ispe") + 8
    return file[:place] + struct.pack(">II", 16_384, 3_000) + file[place + 8 :]


def _png_of_two_sizes() -> bytes:
    """Return a PNG of 49 megapixels of 16 bits that afterwards claims to have one pixel."""
    file = png(7000, 7000, depth=16, colour=2, data=zeros(400 * MB))
    small = png(1, 1)
    return file[:-12] + small[8:33] + file[-12:]


def _webp_of_two_sizes() -> bytes:
    """Return a WebP of 16 megapixels with a chunk after its end that claims one pixel."""
    file = save(Image.new("L", (4000, 4000)), "WEBP", lossless=True, method=0)
    return file + b"VP8X" + struct.pack("<I", 10) + bytes(10)
