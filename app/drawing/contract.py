"""Shared by the gateway and the drawing processes: the format of their messages, and the limits of pictures."""

from __future__ import annotations

import struct

MEDIA_TYPES = ("image/jpeg", "image/png")
MAX_DRAWN_PIXELS = 16_000_000
"""Larger pictures are scaled down: a PNG of noise would otherwise take 150 MB."""
LENGTHS = struct.Struct("<II")
"""Before each message: the length of its JSON, and of the bytes that follow the JSON."""
READY = b"\n"
"""A process writes this once, when it is ready to draw."""
