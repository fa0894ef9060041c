"""A detection's answer as a picture: the upright image with boxes, labels and scores drawn on it.

    encoded image -> upright sRGB -> 16 megapixels at most -> boxes, best last -> label plates -> JPEG or PNG

Line width and text follow the picture's size, so that a thumbnail and a photograph of 16 megapixels read alike. The
image is a stranger's: this runs in a process of its own (`app.drawers`), whose CPU time and memory have an end.
"""

from __future__ import annotations

import ctypes
import io
import json
import math
import resource
import signal
import sys
import unicodedata
import warnings
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageDraw, ImageFont, JpegImagePlugin, PngImagePlugin

from app import memory
from app.drawers import LENGTHS, MAX_DRAWN_PIXELS
from app.errors import GatewayError, ImageTooLargeError, ImageUndecodableError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# The models' own default. An image that passed a model with a higher one is answered as JSON only.
MAX_PIXELS = 50_000_000
MAX_PROFILE_BYTES = 4_000_000
LARGE_BYTES = 2_000_000  # of what was sent and drawn; then memory is given back
CPU_S = 10  # for one picture
MAX_BYTES = 1_600_000_000  # of memory, beside what Python takes
JPEG_SIDE = 65_500  # the encoder's limit
SMALLEST_TEXT = 10  # pixels; below that letters run together
PLATE_SHARE = 4  # a plate hides a quarter of the picture at most
# One colour a class, twelve in turn, the playground's too: hues of OKLCH 150 degrees apart at three lightnesses.
COLOURS = (
    *("#ff645f", "#07e4be", "#b243ba", "#9ca903", "#a8c4fe", "#b85f05"),
    *("#0db3c1", "#ffa5c8", "#019427", "#a884ff", "#f6ba00", "#0584b8"),
)
# EXIF orientation (EXIF 2.32, tag 0x0112) -> what turns a stored picture upright. Not Pillow's `exif_transpose`: it
# rewrites the metadata as well, and fails where other tags are broken.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Place = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, right and bottom not included."""


def draw(image: bytes, predictions: Sequence[dict[str, Any]], kind: str) -> bytes:
    """Return the picture answer; see `app.drawers`."""
    picture = upright(image)
    picture, predictions = scaled(picture, predictions)
    if kind == "image/jpeg" and max(picture.size) > JPEG_SIDE:
        raise ImageTooLargeError(f"A JPEG may have {JPEG_SIDE} pixels a side; ask for image/png.")
    mark(picture, predictions)
    picture.info.clear()  # no profile, no text, no date of the sender's goes out
    buffer = io.BytesIO()
    if kind == "image/jpeg":
        picture.save(buffer, "JPEG", quality=90, subsampling="4:4:4")  # else thin coloured lines fade
    else:
        picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def upright(image: bytes) -> Image.Image:
    """Decode an image as models see it: first frame, EXIF orientation applied, RGB, transparency on white.

    Only its colours are those that a viewer shows: a picture with a sound colour profile is converted to sRGB.
    """
    try:
        opened = Image.open(io.BytesIO(image), formats=FORMATS)
        opened.load()
        return _rgb(_srgb(_turned(opened)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"A picture answer may have {MAX_PIXELS} pixels.") from error
    except MemoryError as error:
        raise ImageTooLargeError("The picture takes more memory to draw than there is for one.") from error
    except Exception as error:  # decoders raise nearly every exception there is on broken bytes
        raise ImageUndecodableError("The image cannot be drawn on.") from error


def scaled(picture: Image.Image, predictions: Sequence[dict[str, Any]]) -> tuple[Image.Image, Sequence[dict[str, Any]]]:
    """Return a picture of at most `MAX_DRAWN_PIXELS`, and the predictions with boxes in its pixels."""
    pixels = picture.width * picture.height
    if pixels <= MAX_DRAWN_PIXELS:
        return picture, predictions
    share = math.sqrt(MAX_DRAWN_PIXELS / pixels)
    width, height = (max(1, int(side * share)) for side in picture.size)
    width, height = min(width, MAX_DRAWN_PIXELS // height), min(height, MAX_DRAWN_PIXELS // width)
    by = {"x": width / picture.width, "y": height / picture.height}
    boxes = [{**one, "box": {side: at * by[side[0]] for side, at in one["box"].items()}} for one in predictions]
    return picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0), boxes


def _srgb(image: Image.Image) -> Image.Image:
    """Return an image in sRGB where it has a profile that can be read and is of its own kind, else as it is.

    The profile is left out of the answer in both cases: viewers take a picture without one for sRGB.
    """
    profile = image.info.get("icc_profile")
    kinds = {"RGB": "RGB ", "RGBA": "RGB ", "CMYK": "CMYK"}
    if not profile or image.mode not in kinds:
        return image
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if given.profile.xcolor_space != kinds[image.mode]:
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        made = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if made is None else made


def _turned(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken metadata beside sound pixels: shown as stored, as the models see it
        return image
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        values = np.asarray(image, np.float32)
        return Image.fromarray((values / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # a copy of 50 megapixels is 150 MB
    pixels = image.convert("RGBA")
    canvas = Image.new("RGB", pixels.size, "white")
    canvas.paste(pixels, mask=pixels)
    return canvas


def mark(picture: Image.Image, predictions: Sequence[dict[str, Any]]) -> None:
    """Draw predictions, best first, on a picture: the best come last, over the others."""
    brush = ImageDraw.Draw(picture)
    line = line_width(picture.size)
    for prediction in reversed(predictions):
        colour = COLOURS[prediction["class_id"] % len(COLOURS)]
        left, top, right, bottom = edges(prediction["box"], picture.size)
        brush.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)
        if line > 1 and min(right - left, bottom - top) > 4 * line:
            # A rim inside, of black or white: the line is seen on a ground of its own colour too.
            inner = (left + line, top + line, right - 1 - line, bottom - 1 - line)
            brush.rectangle(inner, outline=ink(colour), width=max(1, line // 4))
    taken: list[Place] = []
    for prediction in predictions:
        taken += _label(brush, picture.size, prediction, taken)


def line_width(size: tuple[int, int]) -> int:
    """Return the width of a box's line in pixels: 3 on 512 x 512, 17 on 4000 x 3000."""
    return max(1, round(math.sqrt(size[0] * size[1]) / 200))


def text_size(size: tuple[int, int]) -> int:
    """Return the size of the text in pixels: 16 on 512 x 512, 108 on 4000 x 3000; a third of a side at most, or 10."""
    return max(SMALLEST_TEXT, round(min(math.sqrt(size[0] * size[1]) / 32, min(size) / 3)))


def edges(box: dict[str, float], size: tuple[int, int]) -> Place:
    """Return the whole pixels of a box, one at least, inside the picture."""
    left, top = (min(max(0, round(box[name])), side - 1) for name, side in zip(("xmin", "ymin"), size, strict=True))
    right, bottom = (min(max(1, round(box[name])), side) for name, side in zip(("xmax", "ymax"), size, strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _label(
    brush: ImageDraw.ImageDraw, size: tuple[int, int], prediction: dict[str, Any], taken: list[Place]
) -> list[Place]:
    """Draw a label's plate where it hides no other if there is such a place; return it, or nothing when none fits."""
    wording = _fitting(prediction, size)
    if wording is None:
        return []
    text, font, (width, height), start = wording
    left, top, right, bottom = edges(prediction["box"], size)
    corners = [(left, top - height), (left, top), (left, bottom), (right - width, bottom - height)]
    plates = [_inside(corner, (width, height), size) for corner in corners]
    plate = next((plate for plate in plates if not any(_overlap(plate, other) for other in taken)), plates[0])
    colour = COLOURS[prediction["class_id"] % len(COLOURS)]
    brush.rectangle((plate[0], plate[1], plate[2] - 1, plate[3] - 1), fill=colour)
    brush.text((plate[0] + start[0], plate[1] + start[1]), text, fill=ink(colour), font=font, anchor="ls")
    return [plate]


def _fitting(
    prediction: dict[str, Any], size: tuple[int, int]
) -> tuple[str, ImageFont.FreeTypeFont, tuple[int, int], tuple[int, int]] | None:
    """Return the longest wording that fits into the picture, its font, its plate's size, and where it begins there."""
    label, score = written(prediction["label"], prediction["class_id"]), f"{prediction['score']:.2f}"
    largest = text_size(size)
    for text in (f"{label} {score}", label, score):
        for points in dict.fromkeys((largest, max(SMALLEST_TEXT, largest * 2 // 3), SMALLEST_TEXT)):
            font = _font(points)
            margin = max(1, points // 6)
            # Of letters that go up and down: every plate has the same height, every text the same baseline.
            _, top, _, bottom = font.getbbox("Agjl", anchor="ls")
            width, height = (math.ceil(length) + 2 * margin for length in (font.getlength(text), bottom - top))
            if width <= size[0] and height <= size[1] and width * height * PLATE_SHARE <= size[0] * size[1]:
                return text, font, (width, height), (margin, margin - math.floor(top))
    return None


@lru_cache(64)
def _font(points: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(points)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType")
    return font


def written(label: str, class_id: int) -> str:
    """Return a label as the font can write it, which has ASCII only: without accents, or else as the class's number."""
    plain = "".join(part for part in unicodedata.normalize("NFKD", label) if not unicodedata.combining(part))
    plain = " ".join(plain.split())
    return plain if plain and plain.isascii() and plain.isprintable() else f"class {class_id}"


def ink(colour: str) -> str:
    """Return black or white, whichever stands out more on `colour` (WCAG 2, relative luminance)."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def _inside(corner: tuple[int, int], plate: tuple[int, int], size: tuple[int, int]) -> Place:
    """Push a plate that begins at `corner` into the picture."""
    left, top = (min(max(0, corner[axis]), size[axis] - plate[axis]) for axis in (0, 1))
    return left, top, left + plate[0], top + plate[1]


def _overlap(one: Place, other: Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def prepare() -> None:
    """Limit this process, and Pillow in it: no plugins beyond `FORMATS`, no warnings, no size beyond `MAX_PIXELS`."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whoever stops all processes: the gateway ends this
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE_BYTES
    warnings.simplefilter("ignore")
    # Pillow warns above its limit and raises above twice of it; both are a refusal here. It guards the sizes that
    # show only while decoding: tiles, frames, canvases.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    for name in ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Avif"):
        import_module(f"PIL.{name}ImagePlugin")
    # A JPEG of several pictures is read as its first; Pillow would load the plugin MPO for the others.
    Image.register_open("JPEG", JpegImagePlugin.JpegImageFile, lambda prefix: prefix.startswith(b"\xff\xd8\xff"))
    Image._initialized = 2  # what `Image.init` sets when all of its plugins are loaded: it has no switch for fewer
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MAX_BYTES
    limit(resource.RLIMIT_AS, size)


def limit(kind: int, most: int) -> None:
    """Lower a limit of this process; one that it was given stays if it is lower."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


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
    """Draw what comes over standard input until that is closed."""
    prepare()
    given, taken = sys.stdin.buffer, sys.stdout.buffer
    while lengths := given.read(LENGTHS.size):
        text, image = (given.read(length) for length in LENGTHS.unpack(lengths))
        head, picture = answer(json.loads(text), image)
        told = json.dumps(head).encode()
        taken.write(LENGTHS.pack(len(told), len(picture)) + told)
        taken.write(picture)
        taken.flush()
        if len(image) + len(picture) > LARGE_BYTES:
            del image, picture
            memory.give_back()


if __name__ == "__main__":
    main()
