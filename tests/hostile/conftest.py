"""What the tests of hostile files share."""

import pytest
from PIL import Image, JpegImagePlugin, PngImagePlugin


@pytest.fixture
def pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore Pillow's settings, which a step's process changes."""
    assert JpegImagePlugin.JpegImageFile.format in Image.OPEN
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setattr(Image, "_initialized", Image._initialized)
    monkeypatch.setitem(Image.OPEN, "JPEG", Image.OPEN["JPEG"])
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", PngImagePlugin.MAX_TEXT_CHUNK)
