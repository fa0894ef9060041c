"""How a picture becomes one network's input: a `Recipe`, read once from the parameters in a step's config."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from stages import resampling

RULES: Final = (
    *("shortest_edge_center_crop", "stretch_center_crop", "letterbox", "letterbox_center", "letterbox_square"),
    *("stretch", "shortest_edge"),
)
CHANNELS: Final[Mapping[str, int]] = {"RGB": 3, "BGR": 3, "GREY": 1}


@dataclass(frozen=True)
class Recipe:
    """How a picture becomes one network's input.

    Attributes:
        width: of the tensor, in pixels; 0 with `shortest_edge`, where it follows from the picture's proportions.
        height: of the tensor, in pixels; 0 with `shortest_edge`.
        resize: one of `RULES`.
        resize_to: pixels of the shorter side after resizing, and before the crop of `shortest_edge_center_crop`; of
            both sides before the crop of `stretch_center_crop`.
        resample: one of Pillow's or OpenCV's filters.
        pad_value: 0 to 255, the grey level around a letterboxed picture.
        scale: factor on the 8-bit values.
        mean: subtracted after `scale`, one value per channel in the tensor's channel order.
        std: divisor, applied last, one value per channel in the tensor's channel order.
        channel_order: RGB, BGR, or GREY for one channel, which is Pillow's luma (ITU-R 601-2).
        layout: NCHW or NHWC.
        max_pixels: larger pictures are refused.
        longest_edge: limit on the longer side, in pixels; `shortest_edge` only.
        multiple_of: both sides are rounded down to a multiple of this number; `shortest_edge` only.
        rounding: of a fractional longer side and of the crop's corner: nearest and down; down and down, as in
            transformers; or torchvision, which rounds the side down and the corner half to even.
        alpha: what becomes of transparency: `white` shows what is behind it as white, `drop` ignores it.

    """

    width: int
    height: int
    resize: str
    resize_to: float = 0.0
    resample: resampling.Filter = Image.Resampling.BILINEAR
    pad_value: int = 114
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channel_order: str = "RGB"
    layout: str = "NCHW"
    max_pixels: int = 50_000_000
    longest_edge: int = 0
    multiple_of: int = 1
    rounding: str = "nearest"
    alpha: str = "white"

    def __post_init__(self) -> None:
        rules = {
            "width and height must be 1 or more, or absent with shortest_edge": (self.width == self.height == 0)
            if self.is_free
            else (self.width >= 1 and self.height >= 1),
            f"resize must be one of {', '.join(RULES)}": self.resize in RULES,
            "letterbox_square needs width and height to be equal": self.resize != "letterbox_square"
            or self.width == self.height,
            "resize_to must be at least width and height": not self.resize.endswith("center_crop")
            or max(self.width, self.height) <= self.resize_to < math.inf,
            "shortest_edge needs 1 <= resize_to <= longest_edge and multiple_of >= 1": not self.is_free
            or (1 <= self.resize_to <= self.longest_edge and self.multiple_of >= 1),
            "rounding must be nearest, down or torchvision": self.rounding in ("nearest", "down", "torchvision"),
            "alpha must be white or drop": self.alpha in ("white", "drop"),
            "pad_value must be 0 to 255": 0 <= self.pad_value <= 255,
            "mean and std must have a value for each channel": len(self.mean) == len(self.std) == self.channels,
            "scale, mean and std must be finite numbers": all(map(math.isfinite, (self.scale, *self.mean, *self.std))),
            "std must not be 0": 0 not in self.std,
            "channel_order must be RGB, BGR or GREY": self.channel_order in CHANNELS,
            "layout must be NCHW or NHWC": self.layout in ("NCHW", "NHWC"),
            "max_pixels must be 1 or more": self.max_pixels >= 1,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise ValueError("; ".join(broken))

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Recipe:
        """Read a recipe from a config's parameters, which are strings; an absent parameter has its default.

        Raises:
            ValueError: a parameter is missing, cannot be read, or breaks a rule; the message names it.

        """
        found = {}
        for name, read in _READERS.items():
            if name not in parameters:
                continue
            try:
                found[name] = read(parameters[name])
            except (ValueError, KeyError) as error:
                raise ValueError(f"parameter {name}: cannot read {parameters[name]!r}") from error
        if "resize" not in found:
            raise ValueError("parameter missing: resize")
        return cls(**{"width": 0, "height": 0, **found})

    @property
    def channels(self) -> int:
        """How many channels the tensor has."""
        return CHANNELS.get(self.channel_order, 3)

    @property
    def is_free(self) -> bool:
        """Whether the tensor's size depends on the picture."""
        return self.resize == "shortest_edge"

    @property
    def is_identity(self) -> bool:
        """Whether `normalise` leaves the 8-bit values unchanged."""
        return self.scale == 1 and not any(self.mean) and set(self.std) == {1.0}

    @property
    def shape(self) -> tuple[int, int, int]:
        """The tensor's shape without the batch dimension; -1 where it depends on the picture."""
        height, width = (-1, -1) if self.is_free else (self.height, self.width)
        channels = self.channels
        return (channels, height, width) if self.layout == "NCHW" else (height, width, channels)


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "width": int,
    "height": int,
    "resize": str,
    "resize_to": float,
    "longest_edge": int,
    "multiple_of": int,
    "rounding": str,
    "resample": resampling.filter_of,
    "pad_value": int,
    "scale": float,
    "mean": _floats,
    "std": _floats,
    "channel_order": str,
    "layout": str,
    "alpha": str,
    "max_pixels": int,
}
