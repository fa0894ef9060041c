"""Boxes, labels and scores on a picture: where they are, that they can be read, and what is refused."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from living import is_alive, words
from PIL import Image, ImageCms, PngImagePlugin

from app.context import Deadline
from app.drawing import contract, marks, picture, pool
from app.errors import DeadlineExceededError, ImageTooLargeError, ImageUndecodableError, InternalError

ROOT = Path(__file__).resolve().parents[3]
GREY = (119, 121, 123)


def prediction(box: tuple[float, float, float, float], label: str = "person", class_id: int = 0) -> dict[str, Any]:
    """Return a prediction as `/v1/detect` answers it."""
    sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return {"label": label, "class_id": class_id, "score": 0.884, "box": sides}


def blank(width: int, height: int) -> bytes:
    """Return a grey PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), GREY).save(buffer, "PNG")
    return buffer.getvalue()


def drawn(image: bytes, *predictions: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """Return the pixels of the picture answer."""
    return np.asarray(Image.open(io.BytesIO(picture.draw(image, predictions, "image/png"))))


def rgb(colour: str) -> tuple[int, int, int]:
    """Return #rrggbb as three bytes."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Return the contrast of two colours by WCAG 2.2's formula."""

    def luminance(colour: tuple[int, ...]) -> float:
        shares = np.array(colour) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("size", [(64, 64), (640, 480), (480, 640), (4800, 3200), (4000, 40), (40, 3000)])
def test_a_label_can_be_read_at_any_size(size: tuple[int, int]) -> None:
    """Its letters are 6 pixels high at least, and a 45th of the picture's mean side where there is room for that."""
    pixels = drawn(blank(*size), prediction((0, size[1] / 2, size[0], size[1])))
    assert pixels.shape == (size[1], size[0], 3)
    # The ink above the box: neither the picture nor the plate is dark.
    rows, _ = np.nonzero((pixels[: size[1] // 2] < 90).all(axis=2))
    height = rows.max() - rows.min() + 1
    assert height >= max(6, min((size[0] * size[1]) ** 0.5 / 45, min(size) / 6))
    assert contrast((0, 0, 0), rgb(marks.COLOURS[0])) >= 4.5


def test_a_tiny_picture_has_boxes_and_no_broken_text() -> None:
    """Where not even the score fits, only the box is drawn, as thin as possible."""
    pixels = drawn(blank(16, 16), prediction((3, 4, 12, 14)))
    expected = np.full((16, 16, 3), GREY, np.uint8)
    expected[4:14, 3:12] = rgb(marks.COLOURS[0])
    expected[5:13, 4:11] = GREY
    assert np.array_equal(pixels, expected)


def test_boxes_beyond_the_picture_stay_inside() -> None:
    """A box of no width, or one at the very edge, is a line within the picture."""
    for box in ((0, 0, 0, 0), (99.9, 99.9, 100, 100), (50, 50, 50, 80), (0, 0, 100, 100)):
        changed = (drawn(blank(100, 100), prediction(box)) != GREY).any(axis=2)
        assert changed.any()


def test_no_label_hides_another() -> None:
    """Three boxes at one place: all three plates are fully visible."""
    boxes = [prediction((100, 100, 400, 300), "cat", number) for number in range(3)]
    alone = [(drawn(blank(500, 400), box) == rgb(marks.COLOURS[box["class_id"]])).all(axis=2) for box in boxes]
    together = drawn(blank(500, 400), *boxes)
    plates = [(together == rgb(marks.COLOURS[number])).all(axis=2) for number in range(3)]
    # The lines lie over each other; a plate is many times what remains of one.
    filled = [int(mask.sum()) for mask in plates]
    outline = 2 * (300 + 200) * marks.line_width((500, 400))
    assert all(count > int(mask.sum()) - outline for count, mask in zip(filled, alone, strict=True))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("person", "person"),
        ("café\n au  lait", "cafe au lait"),
        ("猫", "class 7"),
        ("", "class 7"),
        ("\x00", "class 7"),
    ],
)
def test_labels_use_the_fonts_characters_only(label: str, expected: str) -> None:
    """Accents are left out; a label in letters that the font lacks becomes its class's number."""
    assert marks.written(label, 7) == expected


def test_every_colour_is_readable_and_the_playground_has_the_same() -> None:
    """Text stands out from its plate, and a class has one colour in both places."""
    for colour in marks.COLOURS:
        assert contrast(rgb({"black": "#000000", "white": "#ffffff"}[marks.ink(colour)]), rgb(colour)) >= 4.5
    script = (ROOT / "app/static/playground/boxes.js").read_text()
    listed, white = script.split("const NEEDS_WHITE")
    assert tuple(re.findall("#[0-9a-f]{6}", listed)) == marks.COLOURS
    assert re.findall("#[0-9a-f]{6}", white) == [c for c in marks.COLOURS if marks.ink(c) == "white"]


def test_pictures_are_decoded_as_models_see_them() -> None:
    """Transparency is white, and grey of 16 bits keeps its shades."""
    clear = Image.new("RGBA", (20, 10), (255, 0, 0, 0))
    clear.putpixel((3, 4), (0, 0, 255, 255))
    deep = np.arange(200, dtype=np.uint16).reshape(10, 20) * 257
    files = []
    for image in (clear, Image.fromarray(deep)):
        files.append(io.BytesIO())
        image.save(files[-1], "PNG")
    pixels = drawn(files[0].getvalue())
    assert tuple(pixels[4, 3]) == (0, 0, 255)
    assert (pixels == 255).all(axis=2).sum() == 199
    assert np.array_equal(drawn(files[1].getvalue()), np.repeat((deep // 257)[:, :, None], 3, axis=2))


def ask(pen: pool.Drawing, image: bytes, seconds: float = 60, kind: str = "image/png") -> Any:
    """Return the coroutine that draws an image without predictions."""
    return pen.picture(image, [], kind, Deadline.after(seconds))


def processes() -> list[psutil.Process]:
    """Return the drawing processes of this process; a stack that other tests share has some too."""
    return [child for child in psutil.Process().children() if "app.drawing.process" in words(child)]


def answers(*images: bytes, seconds: float = 60, kind: str = "image/png") -> list[Any]:
    """Return the answers to images that are sent at once; errors are returned too."""

    async def crowd() -> list[Any]:
        pen = pool.Drawing()
        try:
            return await asyncio.gather(*(ask(pen, image, seconds, kind) for image in images), return_exceptions=True)
        finally:
            await pen.close()

    return asyncio.run(crowd())


READY = "import os, signal, sys, time; os.write(1, b'\\n'); sys.stdin.buffer.read(8)"
"""Begins a stand-in for the process that draws."""


def test_a_process_draws_what_the_code_draws() -> None:
    """The answer is the same, byte for byte, and the next picture uses the same process."""
    (one,), (other,) = answers(blank(100, 80)), answers(blank(100, 80))
    assert one == other == picture.draw(blank(100, 80), [], "image/png")


def test_bombs_and_damage_are_refused() -> None:
    """Too many pixels are refused before they are decoded; so are bytes that are not an image."""
    wide = blank(10, 10).replace(struct.pack(">II", 10, 10), struct.pack(">II", 10_000, 5_001))
    wide = wide[:29] + struct.pack(">I", zlib.crc32(wide[12:29])) + wide[33:]
    large, *broken = answers(wide, b"", b"no image", blank(50, 50)[:60])
    assert isinstance(large, ImageTooLargeError)
    assert all(isinstance(answer, ImageUndecodableError) for answer in broken)


def test_the_deadline_ends_the_drawing_process() -> None:
    """A late picture is answered 504 and its process ends; so does the process of a caller that leaves."""

    async def late() -> list[psutil.Process]:
        pen = pool.Drawing()
        assert await ask(pen, blank(10, 10))
        begun = processes()
        assert len(begun) == 1
        with pytest.raises(DeadlineExceededError):
            await ask(pen, blank(7000, 7000), 0.2)
        leaver = asyncio.create_task(ask(pen, blank(7000, 7000)))
        await asyncio.sleep(0.3)
        begun += processes()
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        await asyncio.sleep(0.3)
        assert await ask(pen, blank(10, 10))
        await pen.close()
        return begun

    begun = asyncio.run(late())
    assert len(begun) >= 2
    assert not [process for process in begun if is_alive(process)]


def test_a_process_that_starts_slowly_serves_the_next_picture() -> None:
    """Callers whose deadlines pass during a start do not end the process: no picture would ever be drawn."""

    here = set(psutil.Process().children())

    def started() -> set[psutil.Process]:
        return set(psutil.Process().children()) - here

    async def impatient() -> tuple[int, int]:
        pen = pool.Drawing(
            (sys.executable, "-c", "import time; time.sleep(0.5); from app.drawing.process import main; main()")
        )
        for _ in range(3):
            with pytest.raises(DeadlineExceededError):
                await ask(pen, blank(10, 10), 0.1)
        (before,) = started()
        assert await ask(pen, blank(10, 10))
        (after,) = started()
        await pen.close()
        return before.pid, after.pid

    before, after = asyncio.run(impatient())
    assert before == after


def test_a_process_that_does_not_start_is_an_internal_error() -> None:
    """The answer is 500, and nothing is left behind."""

    async def fail() -> None:
        pen = pool.Drawing((sys.executable, "-c", "raise SystemExit(1)"))
        with pytest.raises(InternalError):
            await ask(pen, blank(10, 10))
        assert set(psutil.Process().children()) <= here

    here = set(psutil.Process().children())
    asyncio.run(fail())


def test_two_processes_draw_for_everyone() -> None:
    """Two processes draw the pictures of many callers."""

    async def crowd() -> int:
        pen = pool.Drawing()
        asked = [asyncio.create_task(ask(pen, blank(600, 400))) for _ in range(9)]
        most = 0
        while not all(one.done() for one in asked):
            most = max(most, len(processes()))
            await asyncio.sleep(0.01)
        assert len({one.result() for one in asked}) == 1
        await pen.close()
        return most

    assert asyncio.run(crowd()) == pool.MAX_PROCESSES


def test_a_picture_beyond_the_limits_is_refused() -> None:
    """A process that reached a limit means a refusal; another process draws the next picture."""

    async def die() -> None:
        pen = pool.Drawing((sys.executable, "-c", f"{READY}; os.kill(os.getpid(), 24)"))
        with pytest.raises(ImageTooLargeError):
            await ask(pen, blank(10, 10))
        pen = pool.Drawing()
        assert await ask(pen, blank(10, 10))
        await pen.close()

    asyncio.run(die())


def test_a_process_that_fails_by_itself_is_an_internal_error() -> None:
    """It closes its pipe before it ends; its exit code tells a failure from a limit."""

    async def die() -> None:
        script = f"{READY}; os.close(1); time.sleep(0.2); os._exit(3)"
        with pytest.raises(InternalError):
            await ask(pool.Drawing((sys.executable, "-c", script)), blank(10, 10))

    asyncio.run(die())


def test_lower_limits_of_the_operator_are_kept() -> None:
    """A process with lower limits on memory and CPU time still draws a picture."""
    script = (
        "import resource\n"
        "for kind, most in ((resource.RLIMIT_AS, 1_200_000_000), (resource.RLIMIT_CPU, 8)):\n"
        "    resource.setrlimit(kind, (most, most))\n"
        "from app.drawing import process; process.prepare()\n"
        f"head, picture = process.answer({{'predictions': [], 'kind': 'image/png'}}, {blank(10, 10)!r})\n"
        "print(head, len(picture) > 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "{} True\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_is_not_the_pictures_fault(number: signal.Signals) -> None:
    """Ctrl-C and signals to all processes end no drawing process; one that such a signal ends is an internal error."""

    async def signalled() -> None:
        pen = pool.Drawing()
        assert await ask(pen, blank(10, 10))
        (process,) = processes()
        assert os.getpgid(process.pid) != os.getpgid(0)
        process.send_signal(number)
        assert await ask(pen, blank(10, 10))
        assert processes() == [process]
        await pen.close()
        script = f"{READY}; signal.signal({number:d}, signal.SIG_DFL); os.kill(os.getpid(), {number:d})"
        pen = pool.Drawing((sys.executable, "-c", script))
        with pytest.raises(InternalError):
            await ask(pen, blank(10, 10))

    asyncio.run(signalled())


@pytest.mark.parametrize(
    ("size", "drawn_size"),
    [((4000, 4000), (4000, 4000)), ((5000, 5000), (4000, 4000)), ((16_000_001, 1), (16_000_000, 1))],
)
def test_drawn_pictures_have_16_megapixels_at_most(size: tuple[int, int], drawn_size: tuple[int, int]) -> None:
    """Larger pictures are scaled down, and their boxes with them."""
    grey = Image.new("L", size)
    made, (found,) = picture.scaled(grey, [prediction((size[0] / 2, 0, size[0], size[1]))])
    assert made.size == pytest.approx(drawn_size, rel=0.001)
    assert made.width * made.height <= contract.MAX_DRAWN_PIXELS
    assert found["box"]["xmin"] == pytest.approx(made.width / 2)
    assert (found["box"]["xmax"], found["box"]["ymax"]) == pytest.approx(made.size)


def profile(swap: bool) -> bytes:
    """Return sRGB's colour profile; with red and blue exchanged, for a picture that looks otherwise than its pixels."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = {made[at : at + 4]: at for at in range(132, 132 + 12 * int.from_bytes(made[128:132], "big"), 12)}
    red, blue = tags[b"rXYZ"] + 4, tags[b"bXYZ"] + 4
    if swap:
        changed = bytearray(made)
        changed[red : red + 8], changed[blue : blue + 8] = made[blue : blue + 8], made[red : red + 8]
        made = bytes(changed)
    return made


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png"])
def test_drawn_pictures_are_srgb_without_metadata(kind: str) -> None:
    """A valid profile is applied, another is dropped; no profile, comment, date or place goes out."""
    exif = Image.Exif()
    exif[0x010E] = "secret"
    for given, expected in (
        (profile(swap=False), (250, 120, 10)),
        (profile(swap=True), (10, 120, 250)),
        (b"no profile", (250, 120, 10)),
        (profile(swap=True)[:300], (250, 120, 10)),
    ):
        file = io.BytesIO()
        image = Image.new("RGB", (64, 64), (250, 120, 10))
        image.save(file, "PNG", icc_profile=given, exif=exif, pnginfo=_text("secret"))
        made = picture.draw(file.getvalue(), [], kind)
        opened = Image.open(io.BytesIO(made))
        assert np.abs(np.array(opened.getpixel((9, 9))) - expected).max() <= 3
        assert not opened.info.keys() - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert b"secret" not in made
        assert dict(opened.getexif()) == {}


def _text(words: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", words)
    return info


def test_a_profile_of_another_kind_of_picture_is_dropped() -> None:
    """A grey picture with a colour profile stays as it is."""
    file = io.BytesIO()
    Image.new("L", (64, 64), 77).save(file, "PNG", icc_profile=profile(swap=True))
    assert (drawn(file.getvalue()) == 77).all()


def test_no_other_plugin_is_loaded() -> None:
    """A drawing process loads Pillow's plugins for our formats and no others, whatever bytes come in."""
    script = (
        "import io, sys; from app.drawing import picture, process; process.prepare()\n"
        "from PIL import Image\n"
        "for kind in ('JPEG', 'PNG', 'GIF', 'WEBP', 'TIFF', 'BMP', 'AVIF'):\n"
        "    file = io.BytesIO(); Image.new('RGB', (9, 9)).save(file, kind)\n"
        "    for media in ('image/png', 'image/jpeg'): picture.draw(file.getvalue(), [], media)\n"
        "for data in (b'P6 1 1 255 abc', b'garbage', b''):\n"
        "    assert process.answer({'predictions': [], 'kind': 'image/png'}, data)[0]['code']\n"
        "print(sorted(name[4:-11] for name in sys.modules if name.startswith('PIL.') and name.endswith('ImagePlugin')))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['Avif', 'Bmp', 'Gif', 'Jpeg', 'Png', 'Tiff', 'WebP']"
    assert done.stderr == ""
