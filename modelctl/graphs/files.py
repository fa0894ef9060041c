"""What a file that is called .onnx really is: empty, a pointer of Git LFS, a web page, an archive, cut off.

https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from modelctl.errors import CommandError

LFS = b"version https://git-lfs.github.com/spec/"
ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd")
MODEL_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
"""The fields of ONNX's ModelProto."""
VARINT, BYTES = 0, 2


def require_whole(path: Path) -> None:
    """Raise CommandError when a file is certainly not a whole ONNX file; it says what to fetch."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
            missing = _missing(file, size)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    if not size:
        raise CommandError(f"{path} is empty: fetch or export it again.")
    if head.startswith(LFS):
        raise CommandError(f"{path} is a pointer of Git LFS, not the network: run `git lfs pull` where it came from.")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CommandError(f"{path} is a web page, not a network: download the file itself.")
    if head.startswith(ARCHIVES):
        raise CommandError(f"{path} is an archive: unpack it, and give the .onnx file in it.")
    if missing:
        raise CommandError(
            f"{path} is cut off: it has {size} bytes, and at least {missing} are missing; fetch or export it again."
        )


def _missing(file: BinaryIO, size: int) -> int:
    """Return how many bytes an ONNX file lacks at its end; 0 when it lacks none, or is not ONNX."""
    file.seek(0)
    while file.tell() < size:
        key = _varint(file.read)
        if key is None or key >> 3 not in MODEL_FIELDS or key & 7 not in (VARINT, BYTES):
            return 0
        value = _varint(file.read)
        if value is None:
            return int(file.tell() >= size)
        if key & 7 == BYTES:
            if file.tell() + value > size:
                return file.tell() + value - size if key >> 3 != 1 else 0
            file.seek(value, 1)
    return 0


def _varint(read: Callable[[int], bytes]) -> int | None:
    """Return a number of protobuf's encoding; None at the end of the file, or when it has over 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    return None
