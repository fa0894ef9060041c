"""How pictures are prepared for a network: the options of `modelctl add`, and the `ImagePreprocess` they give."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from pydantic import ValidationError

from modelctl.console import say
from modelctl.errors import CommandError
from modelctl.graphs.networks import Port
from modelctl.models.steps import ImagePreprocess

RULES = (
    *("shortest_edge_center_crop", "stretch_center_crop", "letterbox", "letterbox_center", "letterbox_square"),
    *("stretch", "shortest_edge"),
)
RESAMPLES = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos", "opencv_linear", "opencv_area")
NAMES = (
    *("resize", "resize_to", "longest_edge", "resample", "rounding", "pad_value"),
    *("scale", "mean", "std", "channel_order", "alpha"),
)
"""The fields of `ImagePreprocess` that options and sources give."""
IMAGENET = (
    "--resize shortest_edge_center_crop --resize-to 256 --scale 1/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
)

STRIDE = 32
"""The largest cells of most detectors, in pixels."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("picture preprocessing (for files that do not describe it)")
    group.add_argument("--resize", choices=RULES, help="how pictures are brought to the network's size")
    group.add_argument("--resize-to", type=float, metavar="PIXELS", help="length of the shorter side before the crop")
    group.add_argument(
        "--size",
        type=_height_and_width,
        metavar="HEIGHT,WIDTH",
        help="picture size, for networks that accept any size; one number for both",
    )
    group.add_argument(
        "--longest-edge", type=side, metavar="PIXELS", help="for shortest_edge: maximum length of the longer side"
    )
    group.add_argument(
        "--resample",
        choices=RESAMPLES,
        help="interpolation filter: Pillow's, which smooth when they shrink, or OpenCV's "
        "(default: bilinear; opencv_linear for the decoders of YOLO)",
    )
    group.add_argument(
        "--rounding",
        choices=("nearest", "down", "torchvision"),
        help="how a scaled side and a crop's corner are rounded to whole pixels (default: torchvision for crops)",
    )
    group.add_argument(
        "--pad-value", type=int, metavar="GREY", help="grey value of the border around a letterboxed picture, 0 to 255"
    )
    group.add_argument("--scale", type=_number, help="factor applied to the 8-bit values, such as 1/255")
    group.add_argument(
        "--mean", type=_numbers, metavar="A,B,C", help="subtracted after scaling; values in the tensor's channel order"
    )
    group.add_argument(
        "--std", type=_divisors, metavar="A,B,C", help="divisor applied last; values in the tensor's channel order"
    )
    group.add_argument(
        "--channel-order",
        choices=("RGB", "BGR", "GREY"),
        help="channel order of the tensor (default: RGB; GREY for one channel)",
    )
    group.add_argument(
        "--alpha", choices=("white", "drop"), help="show transparent pictures on white (default), or drop transparency"
    )
    group.add_argument("--layout", choices=("NCHW", "NHWC"), help="axis order of the tensor (default: from its shape)")
    group.add_argument(
        "--no-fold",
        action="store_true",
        default=None,
        help="leave scale, mean, std, channel order and layout to the step before the network, instead of storing them "
        "in the network's file",
    )


def side(text: str) -> int:
    """Return the size in an option's text; raises ArgumentTypeError unless it is a whole number from 1."""
    if not text.strip().isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a size: give whole numbers from 1")
    return int(text)


def _height_and_width(text: str) -> list[int]:
    sides = [side(part) for part in text.split(",")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"give one side or height and width, not {len(sides)}")
    return sides * 2 if len(sides) == 1 else sides


def _number(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number: give one such as 0.5 or 1/255") from error


def _divisors(text: str) -> list[float]:
    values = _numbers(text)
    if not all(values):
        raise argparse.ArgumentTypeError("a divisor cannot be 0")
    return values


def _numbers(text: str) -> list[float]:
    values = [_number(part) for part in text.split(",")]
    if len(values) not in (1, 3):
        raise argparse.ArgumentTypeError(f"give one number or three, not {len(values)}")
    return values * 3 if len(values) == 1 else values


AXES = (("NCHW", 1), ("NHWC", 3))
"""The layouts, and the axis of their channels."""


def layout_of(port: Port, asked: str | None) -> str:
    """Return NCHW or NHWC.

    Raises:
        CommandError: when the input is not a batch of RGB or grey pictures, or when both layouts are possible and
            none was given.

    """
    shape = port.shape
    if len(shape) != 4:
        raise CommandError(f"The input '{port.name}' has {len(shape)} axes; a batch of pictures has four.")
    possible = [layout for layout, axis in AXES if shape[axis] in (3, 1, None)]
    if asked in possible:
        return asked
    if asked or not possible:
        raise CommandError(
            f"The input '{port.name}' of shape {list(shape)} is not a batch of RGB or grey pictures in "
            f"{asked or 'any layout'}."
        )
    for channels in (3, 1):
        fixed = [layout for layout, axis in AXES if shape[axis] == channels]
        if len(fixed) == 1:
            return fixed[0]
    raise CommandError(f"The input '{port.name}' of shape {list(shape)} does not tell its layout: give --layout.")


def say_odd_size(options: argparse.Namespace) -> None:
    """Print a warning when `--size` is no multiple of the cells that most detectors divide a picture into."""
    sides: Sequence[int] = options.size or []
    if any(value % STRIDE for value in sides):
        nearest = " ".join(str(max(STRIDE, round(value / STRIDE) * STRIDE)) for value in sides)
        say(f"      --size {sides[0]} {sides[1]} is not a multiple of {STRIDE}, as most detectors need: try {nearest}.")


def _channel_order(port: Port, axis: int, asked: str | None) -> str:
    """Return the channel order that was asked for, else GREY for one channel and RGB for three.

    Raises:
        CommandError: when the input has another number of channels.

    """
    channels = port.shape[axis] or (1 if asked == "GREY" else 3)
    if asked is None:
        return "GREY" if channels == 1 else "RGB"
    if (asked == "GREY") != (channels == 1):
        fitting = "GREY" if channels == 1 else "RGB or BGR"
        raise CommandError(
            f"The input '{port.name}' has {channels} channel{'s' * (channels > 1)}, which are not {asked}: "
            f"give --channel-order {fitting}."
        )
    return asked


def _one_value(name: str, values: Sequence[float]) -> list[float]:
    if len(set(values)) > 1:
        raise CommandError(f"The network takes grey pictures, of one channel: give one value for --{name}.")
    return [values[0]]


def _size(asked: Sequence[int] | None, height: int | None, width: int | None) -> tuple[int | None, int | None]:
    """Return height and width: the network's own, else those asked for; None where neither is fixed."""
    if asked is None:
        return height, width
    if any(own not in (None, wanted) for own, wanted in zip((height, width), asked, strict=True)):
        raise CommandError(
            f"The network takes pictures of {height} x {width}, not {asked[0]} x {asked[1]}: omit --size."
        )
    return asked[0], asked[1]


def preprocess(port: Port, options: argparse.Namespace, known: dict[str, Any]) -> ImagePreprocess:
    """Return the preparation of pictures for an input: the file's own (`known`), overruled by the user's options.

    Raises:
        CommandError: when an option is missing, does not fit, or has no effect.

    """
    layout = layout_of(port, options.layout)
    height, width = port.shape[2:] if layout == "NCHW" else port.shape[1:3]
    height, width = _size(options.size or known.get("size"), height, width)
    given = {name: value for name in NAMES if (value := getattr(options, name)) is not None}
    how = {**{name: known[name] for name in NAMES if name in known}, **given, "layout": layout}
    how["channel_order"] = _channel_order(port, dict(AXES)[layout], how.get("channel_order"))
    raw = port.dtype == "UINT8"
    missing = [name for name in ("resize", *(() if raw else ("scale", "mean", "std"))) if name not in how]
    if missing:
        options_missing = ", ".join(f"--{name}" for name in missing)
        hint = f" (Most ImageNet networks of PyTorch: {IMAGENET})" if "mean" in missing else ""
        raise CommandError(f"The file does not say how its pictures were prepared: give {options_missing}.{hint}")
    if raw:
        idle = [f"--{name}" for name in ("scale", "mean", "std") if getattr(options, name) is not None]
        if idle:
            raise CommandError(
                f"{', '.join(idle)} would do nothing for the input '{port.name}' of UINT8, which takes bytes "
                "as they are: omit them."
            )
        how |= {"scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3}
    if how["channel_order"] == "GREY":
        how |= {name: _one_value(name, how[name]) for name in ("mean", "std")}
    if how["resize"] != "shortest_edge":
        if height is None or width is None:
            raise CommandError("The network takes pictures of any size: give --size HEIGHT,WIDTH.")
        how |= {"height": height, "width": width}
        if how["resize"].endswith("center_crop"):
            how.setdefault("resize_to", round(max(height, width) / 0.875))
            how.setdefault("rounding", "torchvision")
    try:
        return ImagePreprocess(**how)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        said = f"{key} {first['msg'].removeprefix('Value error, ')}".strip()
        raise CommandError(f"The options do not fit: {said}.") from error
