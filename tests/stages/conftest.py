"""Pillow as it is in a step's process."""

import warnings

import pytest
from PIL import Image, JpegImagePlugin, PngImagePlugin

from stages import decoding

CAP = 50_000_000


@pytest.fixture
def pillow(monkeypatch):
    """Set Pillow up as a step's process does, and restore its settings afterwards."""
    assert JpegImagePlugin.JpegImageFile.format in Image.OPEN
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setattr(Image, "_initialized", Image._initialized)
    monkeypatch.setitem(Image.OPEN, "JPEG", Image.OPEN["JPEG"])
    for name in ("MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY"):
        monkeypatch.setattr(PngImagePlugin, name, getattr(PngImagePlugin, name))
    with warnings.catch_warnings():
        decoding.prepare_pillow(CAP)
        yield
