"""The inputs with which models are compared: our pictures and texts, or those of a given folder or file."""

from __future__ import annotations

from pathlib import Path

from modelctl.errors import CommandError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
SAMPLES = Path(__file__).parent.parent / "samples"


def inputs(pictures: bool, folder: Path | None, texts: Path | None) -> dict[str, bytes]:
    """Return inputs by name: encoded pictures, or texts in UTF-8.

    Raises:
        CommandError: when there are none, or when the option is for another kind of model.

    """
    kind, option = ("pictures", "--images") if pictures else ("texts", "--texts")
    if (texts if pictures else folder) is not None:
        raise CommandError(f"The model takes {kind}: give {option}.")
    try:
        found = _pictures(folder or SAMPLES) if pictures else _lines(texts or SAMPLES / "texts.txt")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"The {kind} cannot be read: {error}.") from error
    if not found:
        raise CommandError(f"There are no {kind} in {folder or texts or SAMPLES}.")
    return found


def _pictures(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    return {path.name: path.read_bytes() for path in paths}


def _lines(path: Path) -> dict[str, bytes]:
    lines = path.read_text("utf-8-sig").splitlines()
    return {f"{number}: {line[:36]}": line.encode() for number, line in enumerate(lines, 1) if line.strip()}
