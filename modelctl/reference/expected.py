"""Holds answers against the `expect` part of a model's `model.yaml`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modelctl.errors import CommandError
from modelctl.models.expectation import Expectation
from modelctl.reference.answers import Found, iou

OVERLAP = 0.5
"""Smallest intersection over union with the expected box."""


def unmet(expected: Expectation, found: list[Found]) -> str:
    """Return how an answer, best first, differs from what is expected; empty where it is right."""
    what = f"{expected.item}: expected {expected.label}"
    if not found:
        return f"{what}, no box was found"
    first = f"{found[0].label} {found[0].score:.3f}"
    if not found[0].box:
        return "" if found[0].label == expected.label else f"{what}, answered {first}"
    same = [one for one in found if one.label == expected.label]
    if not same:
        return f"{what}, the best of {len(found)} boxes is {first}"
    if expected.box is None:
        return ""
    best = max(iou(np.array(one.box), np.array(expected.box)) for one in same)
    place = ",".join(f"{side:g}" for side in expected.box)
    return "" if best >= OVERLAP else f"{what} at {place}, its boxes overlap that by {best:.2f} at most"


def content(expected: Expectation, folder: Path) -> bytes:
    """Return what is asked; pictures lie in the model's folder.

    Raises:
        CommandError: when the picture cannot be read.

    """
    if expected.text is not None:
        return expected.text.encode()
    try:
        return (folder / str(expected.image)).read_bytes()
    except OSError as error:
        raise CommandError(
            f"The expected picture {expected.image} cannot be read ({error.strerror}): put it into {folder}, or "
            "remove it from expect in model.yaml."
        ) from error
