"""Nearly valid files: cut into the pieces of their format, with a few pieces changed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import bombs
from PIL import Image
from skimage import data

EXTREMES: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 4000, 7000, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
LARGEST: Final = 8_000_000


def seeds(kind: str) -> list[bytes]:
    """Return valid files of one format, of several kinds."""
    photo = Image.fromarray(data.astronaut()).resize((160, 120))
    clear = photo.convert("RGBA")
    clear.putalpha(128)
    grey, few = photo.convert("L"), photo.quantize(32)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a picture"
    frames: dict[str, Any] = {"save_all": True, "append_images": [photo.rotate(90), photo.rotate(180)]}
    made: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "JPEG": [(photo, {"exif": exif}), (photo, {"progressive": True}), (photo.convert("CMYK"), {}), (grey, {})],
        "PNG": [(photo, {"exif": exif}), (clear, {}), (few, {"transparency": 3}), (photo, frames), (grey, {})],
        "WEBP": [(photo, {"exif": exif}), (clear, {"lossless": True}), (photo, frames)],
        "GIF": [(few, {}), (photo, frames), (few, {"transparency": 3, "interlace": True, "comment": b"c" * 700})],
        "BMP": [(photo, {}), (few, {}), (grey, {}), (photo.convert("1"), {})],
        "TIFF": [
            *((photo, {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
            (photo, frames),
            (clear, {"exif": exif}),
            (photo.convert("1"), {"compression": "group4"}),
        ],
        "AVIF": [(photo, {"exif": exif, "speed": 10}), (clear, {"speed": 10}), (photo, {**frames, "speed": 10})],
    }
    files = [bombs.save(image, kind, **options) for image, options in made[kind]]
    if kind == "BMP":
        files.append(bombs.bmp(160, 120, 1, b"\xa0\x07\0\0" * 120))
    return files


def mutants(kind: str, count: int, seed: int) -> Iterator[bytes]:
    """Yield files of one format with one to three faults each."""
    chance = random.Random(seed)
    files = seeds(kind)
    cut, join = CUTS[kind]
    for _ in range(count):
        pieces = cut(chance.choice(files))
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            pieces = chance.choice(FAULTS)(chance, pieces) or pieces
        yield join(pieces)[:LARGEST]


def _change(chance: random.Random, pieces: list[bytes]) -> list[bytes]:
    """Set a field of 1, 2, 4 or 8 bytes to an unexpected value."""
    index = chance.randrange(len(pieces))
    piece, size = pieces[index], chance.choice((1, 2, 4, 8))
    place = chance.randrange(min(len(piece), chance.choice((16, 64, 1 << 20))) or 1)
    value = chance.choice((*EXTREMES, chance.getrandbits(32))) & (1 << 8 * size) - 1
    field = value.to_bytes(size, chance.choice(("little", "big")))
    return [*pieces[:index], piece[:place] + field + piece[place + size :], *pieces[index + 1 :]]


def _repeat(chance: random.Random, pieces: list[bytes]) -> list[bytes]:
    """Repeat a piece, up to the size of a large file."""
    index = chance.randrange(len(pieces))
    most = LARGEST // (len(pieces[index]) + 1)
    times = min(most, chance.choice((2, 3, 50, 1_000, 30_000, 1_000_000)))
    return [*pieces[:index], pieces[index] * times, *pieces[index + 1 :]]


def _drop(chance: random.Random, pieces: list[bytes]) -> list[bytes]:
    index = chance.randrange(len(pieces))
    return [*pieces[:index], *pieces[index + 1 :]]


def _swap(chance: random.Random, pieces: list[bytes]) -> list[bytes]:
    one, other = chance.randrange(len(pieces)), chance.randrange(len(pieces))
    swapped = list(pieces)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    return swapped


def _stretch(chance: random.Random, pieces: list[bytes]) -> list[bytes]:
    """Insert many equal bytes into a piece."""
    index = chance.randrange(len(pieces))
    piece = pieces[index]
    place = chance.randrange(len(piece) + 1)
    filling = bytes([chance.choice((0, 1, 0x21, 0xFF, chance.getrandbits(8)))]) * chance.choice((1, 300, 70_000, 10**6))
    return [*pieces[:index], piece[:place] + filling + piece[place:], *pieces[index + 1 :]]


def _cut_short(chance: random.Random, pieces: list[bytes]) -> list[bytes]:
    index = chance.randrange(len(pieces))
    return [*pieces[:index], pieces[index][: chance.randrange(len(pieces[index]) + 1)], *pieces[index + 1 :]]


FAULTS: Final = (*[_change] * 6, _repeat, _drop, _swap, _stretch, _cut_short)


def _pieces_of_png(file: bytes) -> list[bytes]:
    """Return type and content of each chunk."""
    pieces, place = [], 8
    while place < len(file):
        (size,) = struct.unpack_from(">I", file, place)
        pieces.append(file[place + 4 : place + 8 + size])
        place += size + 12
    return pieces


def _png(pieces: list[bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(bombs.chunk(piece[:4].ljust(4, b"x"), piece[4:]) for piece in pieces)


def _pieces_of_webp(file: bytes) -> list[bytes]:
    pieces, place = [], 12
    while place < len(file):
        (size,) = struct.unpack_from("<I", file, place + 4)
        pieces.append(file[place : place + 8 + size + size % 2])
        place += 8 + size + size % 2
    return pieces


def _webp(pieces: list[bytes]) -> bytes:
    body = b"WEBP" + b"".join(pieces)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _pieces_of_gif(file: bytes) -> list[bytes]:
    """Return the header with its palette, each extension, and each frame up to the end of its data."""
    place = 13 + (3 << (file[10] & 7) + 1 if file[10] & 128 else 0)
    pieces = [file[:13], file[13:place]]
    while file[place : place + 1] in (b"!", b","):
        begin = place
        if file[place] == 0x21:
            place += 2
        else:
            place += 11 + (3 << (file[place + 9] & 7) + 1 if file[place + 9] & 128 else 0)
        while file[place]:
            place += file[place] + 1
        place += 1
        pieces.append(file[begin:place])
    return [*pieces, file[place:]]


def _pieces_of_bmp(file: bytes) -> list[bytes]:
    begin = int.from_bytes(file[10:14], "little")
    return [file[:14], file[14:54], file[54:begin], file[begin : begin + 500], file[begin + 500 :]]


def _pieces_of_tiff(file: bytes) -> list[bytes]:
    """Return the header, each entry of the first directory, and the bytes before and after them."""
    begin = int.from_bytes(file[4:8], "little")
    count = int.from_bytes(file[begin : begin + 2], "little")
    end = begin + 2 + 12 * count
    entries = [file[at : at + 12] for at in range(begin + 2, end, 12)]
    return [file[:8], file[8:begin], file[begin : begin + 2], *entries, file[end:]]


def _pieces_of_avif(file: bytes) -> list[bytes]:
    """Return the boxes; `meta` is cut into its own boxes, their heads apart."""
    pieces, place = [], 0
    while place + 8 <= len(file):
        size, kind = struct.unpack_from(">I4s", file, place)
        head = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"moov": 8, b"trak": 8, b"mdia": 8, b"minf": 8, b"stbl": 8}
        size = head.get(kind, size) or len(file) - place
        pieces.append(file[place : place + size])
        place += size
    return [*pieces, file[place:]]


CUTS: Final[dict[str, tuple[Callable[[bytes], list[bytes]], Callable[[list[bytes]], bytes]]]] = {
    "JPEG": (lambda file: [*bombs.segments(file), b"\xff\xd9"], b"".join),
    "PNG": (_pieces_of_png, _png),
    "WEBP": (_pieces_of_webp, _webp),
    "GIF": (_pieces_of_gif, b"".join),
    "BMP": (_pieces_of_bmp, b"".join),
    "TIFF": (_pieces_of_tiff, b"".join),
    "AVIF": (_pieces_of_avif, b"".join),
}
