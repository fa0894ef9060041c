"""What a model is asked about when it is compared: our pictures and texts, or those of a folder or file."""

from __future__ import annotations

from pathlib import Path

from modelctl.errors import CommandError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
SAMPLES = Path(__file__).parent.parent / "samples"


def inputs(pictures: bool, folder: Path | None, texts: Path | None) -> dict[str, bytes]:
    """Return what to ask about, by name.

    Raises:
        CommandError: when there is nothing, or when the option is not of the model's kind.

    """
    if (texts if pictures else folder) is not None:
        raise CommandError(
            f"Give {'--images, as the model takes pictures' if pictures else '--texts, as it takes texts'}."
        )
    try:
        found = _pictures(folder or SAMPLES) if pictures else _lines(texts or SAMPLES / "texts.txt")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"What to ask about cannot be read: {error}: give another place.") from error
    if not found:
        raise CommandError(f"There is nothing to ask about in {folder or texts}.")
    return found


def _pictures(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    return {path.name: path.read_bytes() for path in paths}


def _lines(path: Path) -> dict[str, bytes]:
    lines = path.read_text("utf-8-sig").splitlines()
    return {f"{number}: {line[:36]}": line.encode() for number, line in enumerate(lines, 1) if line.strip()}
