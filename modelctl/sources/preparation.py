"""Contradictions of a picture's preparation: between its numbers, (value x scale - mean) / std, and with the file.

Each rule follows from the arithmetic, or from constants that belong together; none looks at an answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelctl.models.steps import ImagePreprocess

BYTE = 255
SMALL = 3.0
"""Values below are of the range 0 to 1 or -1 to 1, above of 0 to 255."""
WIDEST, NARROWEST = 300.0, 0.2
"""Networks take values within -255 to 255, over a range of about 1 or more."""
MEANS = ((0.485, 0.456, 0.406), (0.471, 0.447, 0.408))
"""Red, green and blue, of ImageNet and COCO, for values of 0 to 1. Other data sets may have more blue than red."""
STD = (0.229, 0.224, 0.225)
"""ImageNet's."""
CLOSE = 0.01


def contradictions(settings: ImagePreprocess) -> list[str]:
    """Return a sentence for each contradiction; empty when the numbers fit together."""
    return _range(settings) or [*_channels(settings), *_halves(settings)]


def overruled(known: Mapping[str, Any], options: argparse.Namespace) -> list[str]:
    """Return a sentence for each option that contradicts what a file's exporter says of it.

    `known` is as `metadata.ultralytics` returns it; a file that names its scale, and no channel order, takes RGB.
    """
    said = {"channel_order": "RGB", **known} if "scale" in known else known
    names = ("resize", "scale", "mean", "std", "channel_order", "decoder")
    return [
        f"--{name.replace('_', '-')} {_text(given)} overrules the file, which says {_text(said[name])}: "
        "omit it unless the file is wrong."
        for name in names
        if name in said and (given := getattr(options, name)) is not None and not _is_same(given, said[name])
    ]


def _is_same(given: Any, said: Any) -> bool:
    return bool(given == said if isinstance(given, str) else np.allclose(given, said, rtol=1e-6))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return ",".join(f"{number:.4g}" for number in np.atleast_1d(value))


def _range(settings: ImagePreprocess) -> list[str]:
    top, mean, std = BYTE * abs(settings.scale), max(map(abs, settings.mean)), max(map(abs, settings.std))
    if mean > 1.01 * top:
        return [
            f"The mean {mean:g} is of values from 0 to 255, and the scale makes them 0 to {top:.3g}: divide --mean and "
            "--std by 255, or give --scale 1."
        ]
    if top > SMALL and 0 < mean <= 1:
        return [
            f"The mean {mean:g} is of values from 0 to 1, and the scale leaves them 0 to {top:.3g}: give --scale 1/255."
        ]
    ends = [(value - m) / s for m, s in zip(settings.mean, settings.std, strict=True) for value in (0, top)]
    low, high = min(ends), max(ends)
    if max(-low, high) > WIDEST:
        return [f"The network gets values of {low:.3g} to {high:.3g}: --scale, --mean and --std do not fit together."]
    if high - low < NARROWEST:
        return [
            f"The network gets values of {low:.3g} to {high:.3g} only: --scale {settings.scale:.3g} and --std {std:g} "
            "divide twice."
        ]
    return []


def _channels(settings: ImagePreprocess) -> list[str]:
    wrong = settings.mean[::-1] if settings.channel_order == "RGB" else settings.mean
    if not any(_is_multiple(wrong, known) for known in MEANS):
        return []
    given = ",".join(f"{value:g}" for value in settings.mean)
    other = "BGR" if settings.channel_order == "RGB" else "RGB"
    return [
        f"The mean {given} is in the order {other}, and --channel-order is {settings.channel_order}: --mean and --std "
        "are in the tensor's order."
    ]


def _halves(settings: ImagePreprocess) -> list[str]:
    """Return a sentence where ImageNet's mean comes without its std, or the reverse."""
    if BYTE * abs(settings.scale) > SMALL:
        return []  # Caffe's networks have a mean alone, of values from 0 to 255
    means = [_is_multiple(order, MEANS[0]) for order in (settings.mean, settings.mean[::-1])]
    if any(means) and set(settings.std) == {1.0}:
        return ["The mean is ImageNet's and --std is 1: its usual std is 0.229,0.224,0.225."]
    if not any(settings.mean) and any(
        np.allclose(order, STD, rtol=CLOSE) for order in (settings.std, settings.std[::-1])
    ):
        return ["The std is ImageNet's and --mean is 0: its usual mean is 0.485,0.456,0.406."]
    return []


def _is_multiple(values: Sequence[float], known: Sequence[float]) -> bool:
    factors = np.array(values) / np.array(known)
    return bool(factors.min() > 0 and factors.max() <= (1 + CLOSE) * factors.min())
