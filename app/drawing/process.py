"""The drawing process: it sets its own limits, then draws one picture for each message on standard input.

Started by `app.drawing.pool` as `python -m app.drawing.process`. The images are strangers': CPU time, memory and the
formats that Pillow reads are limited before the first one is opened.
"""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image, JpegImagePlugin, PngImagePlugin

from app import memory
from app.drawing.contract import LENGTHS, READY
from app.drawing.picture import MAX_PIXELS, draw
from app.errors import GatewayError, ImageTooLargeError

MAX_PROFILE_BYTES = 4_000_000
LARGE_BYTES = 2_000_000
"""Memory goes back to the system after an exchange of more bytes."""
CPU_S = 10
"""CPU time for one picture."""
MAX_BYTES = 1_600_000_000
"""Memory for pictures, in addition to the memory of the process at its start."""


def prepare() -> None:
    """Limit this process, and Pillow in it: no further formats, no warnings, no more than `MAX_PIXELS`."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # signals to all processes: the gateway ends this one
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE_BYTES
    warnings.simplefilter("ignore")
    # Pillow warns above its limit and raises above twice the limit; both are a refusal here. It also checks the sizes
    # that show only while decoding: tiles, frames, canvases.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    for name in ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Avif"):
        import_module(f"PIL.{name}ImagePlugin")
    # Only the first picture of a JPEG is read; for files with several, Pillow would load the plugin MPO.
    Image.register_open("JPEG", JpegImagePlugin.JpegImageFile, lambda prefix: prefix.startswith(b"\xff\xd8\xff"))
    Image._initialized = 2  # as `Image.init` sets it when all plugins are loaded; Pillow has no option to load fewer
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MAX_BYTES
    limit(resource.RLIMIT_AS, size)


def limit(kind: int, value: int) -> None:
    """Set a limit of this process, but never above the limit that it already has."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def answer(head: dict[str, Any], image: bytes) -> tuple[dict[str, str], bytes]:
    """Return a picture, or the problem's code and detail."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + CPU_S
    limit(resource.RLIMIT_CPU, seconds)
    try:
        return {}, draw(image, head["predictions"], head["kind"])
    except GatewayError as error:
        return {"code": error.code, "detail": error.detail}, b""
    except MemoryError:
        return {"code": ImageTooLargeError.code, "detail": "The picture takes too much memory to draw."}, b""


def main() -> None:
    """Answer messages until standard input is closed."""
    prepare()
    given, taken = sys.stdin.buffer, sys.stdout.buffer
    taken.write(READY)
    taken.flush()
    while lengths := given.read(LENGTHS.size):
        text, image = (given.read(length) for length in LENGTHS.unpack(lengths))
        head, picture = answer(json.loads(text), image)
        text_out = json.dumps(head).encode()
        taken.write(LENGTHS.pack(len(text_out), len(picture)) + text_out)
        taken.write(picture)
        taken.flush()
        if len(image) + len(picture) > LARGE_BYTES:
            del image, picture
            memory.give_back()


if __name__ == "__main__":
    main()
