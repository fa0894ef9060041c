"""`--expect` and `--expect-box` of `modelctl add`: right answers to pictures or texts of the user's own.

PICTURE=LABEL[:x1,y1,x2,y2] --read--> Wish --> the `expect` part of model.yaml, the picture beside it
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from modelctl.errors import CommandError, did_you_mean
from modelctl.models.expectation import Expectation
from modelctl.models.spec import EnsembleSpec, ModelSpec, ObjectDetection, TensorModel
from modelctl.models.steps import ImagePreprocess


@dataclass(frozen=True)
class Wish:
    """One expectation, and the encoded picture or UTF-8 text that it is about."""

    expected: Expectation
    item: bytes

    @property
    def name(self) -> str:
        """Its key among the answers: the picture's file, or the whole text, since two texts may begin alike."""
        return self.expected.image or f"'{self.expected.text}'"


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Declare the options."""
    group.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="PICTURE=LABEL",
        help="the first label that a picture, or a text, must have (of a detector: the label of one of its boxes); "
        "kept in model.yaml, and checked by verify too; may be repeated",
    )
    group.add_argument(
        "--expect-box",
        action="append",
        default=[],
        metavar="PICTURE=LABEL:X1,Y1,X2,Y2",
        help="a box of this label that a picture must have, in its pixels (intersection over union from 0.5)",
    )


def wishes(spec: ModelSpec, labels: Sequence[str], options: argparse.Namespace) -> list[Wish]:
    """Return what the user expects.

    Raises:
        CommandError: when an option is malformed, or does not fit the model.

    """
    given = [*((text, False) for text in options.expect), *((text, True) for text in options.expect_box)]
    if not given:
        return []
    if isinstance(spec, TensorModel):
        raise CommandError("--expect has no effect on a model that serves tensors: omit it.")
    if options.expect_box and not isinstance(spec, ObjectDetection):
        raise CommandError("--expect-box is for detectors, and this model has no boxes: give --expect PICTURE=LABEL.")
    found: list[Wish] = []
    for text, has_box in given:
        found.append(_wish(spec, text, has_box=has_box, number=len(found) + 1))
        label = found[-1].expected.label
        if label not in labels:
            raise CommandError(f"'{label}' of --expect is not one of the model's labels.{did_you_mean(label, labels)}")
    return found


def _wish(spec: EnsembleSpec, text: str, *, has_box: bool, number: int) -> Wish:
    item, _, answer = text.rpartition("=")
    label, _, sides = answer.rpartition(":") if has_box else (answer, "", "")
    if not item or not label:
        form = "--expect-box PICTURE=LABEL:X1,Y1,X2,Y2" if has_box else "--expect PICTURE=LABEL"
        raise CommandError(f"'{text}' is not of the form {form}.")
    if not isinstance(spec.preprocess, ImagePreprocess):
        return Wish(Expectation(text=item, label=label), item.encode())
    path = Path(item)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CommandError(f"The picture {path} of --expect cannot be read: {error.strerror}.") from error
    try:
        box = [float(side) for side in sides.split(",")] if has_box else None
        return Wish(Expectation(image=_file_name(path, number), label=label, box=box), data)
    except (ValueError, ValidationError) as error:
        raise CommandError(
            f"'{sides}' is not a box: give X1,Y1,X2,Y2 in the picture's pixels, with X1 < X2 and Y1 < Y2."
        ) from error


def _file_name(path: Path, number: int) -> str:
    """Return the name of the picture's copy in the model's folder."""
    return f"expect_{number}_{re.sub(r'[^A-Za-z0-9_.-]', '_', path.name)}"


def keep(found: Sequence[Wish], folder: Path) -> None:
    """Copy the pictures into the model's folder."""
    for wish in found:
        if wish.expected.image is not None:
            (folder / wish.expected.image).write_bytes(wish.item)
