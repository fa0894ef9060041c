"""The step of `modelctl add` in which a person can judge the answers before the model is served.

draft --reference--> answers to the samples --print, draw, judge--> warnings --ask--> go on, or stop
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from modelctl.console import say
from modelctl.errors import CommandError
from modelctl.models.spec import ObjectDetection, TensorModel
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.answers import Found
from modelctl.reference.examined import Examined, examine
from modelctl.reference.expected import unmet
from modelctl.reference.model import Reference, onnx_run
from modelctl.sources import expectations, folders, judgement, preparation, sample_pictures
from modelctl.sources.draft import Draft
from modelctl.sources.expectations import Wish

LABELS, BOXES = 3, 4
"""How much of an answer is printed on one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("judging the answers")
    expectations.add_arguments(group)
    group.add_argument(
        "--save-pictures", type=Path, metavar="DIR", help="write the sample pictures with their boxes or labels there"
    )
    group.add_argument(
        "--yes", action="store_true", help="do not ask before a model with warnings is served (at a terminal)"
    )


@dataclass
class Judgement:
    """What one draft answers, and what is doubtful about it.

    Attributes:
        answers: by the sample's name, best first.
        warnings: sentences.
        wishes: what the user expects, all met.

    """

    answers: dict[str, list[Found]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)

    def as_object(self) -> dict[str, Any]:
        """Return it for JSON."""
        rows = {name: [_row(one) for one in found] for name, found in self.answers.items()}
        return {"answers": rows, "warnings": self.warnings}


def doubt(draft: Draft) -> None:
    """Note what contradicts itself in a draft's recipe, as its source or the user gave it."""
    if not isinstance(draft.spec, TensorModel) and isinstance(draft.spec.preprocess, ImagePreprocess):
        draft.doubts += preparation.contradictions(draft.spec.preprocess)


def judge(draft: Draft, options: argparse.Namespace) -> Judgement:
    """Print what a draft answers and what is doubtful about it; a tensor model has no answers.

    Raises:
        CommandError: when an expectation is malformed or not met.

    """
    wishes = expectations.wishes(draft.spec, draft.labels, options)
    spec = draft.spec
    if isinstance(spec, TensorModel):
        if options.save_pictures:
            raise CommandError("--save-pictures is for models of pictures, and this one serves tensors: omit it.")
        return Judgement()
    is_picture = isinstance(spec.preprocess, ImagePreprocess)
    if options.save_pictures and not is_picture:
        raise CommandError("--save-pictures is for models of pictures, and this one takes texts: omit it.")
    reference = Reference(spec, draft.labels, draft.tokenizer, onnx_run(draft.network, spec))
    items = {**folders.items(spec, None), **{wish.name: wish.item for wish in wishes}}
    examined = {name: _examine(reference, name, item) for name, item in items.items()}
    made = Judgement({name: one.found for name, one in examined.items()}, wishes=wishes)
    for name, one in examined.items():
        say(f"      {name}: {line(one.found, boxes=isinstance(spec, ObjectDetection))}")
    if options.save_pictures:
        sample_pictures.save(options.save_pictures, items, made.answers)
        say(f"      drawn in {options.save_pictures}")
    made.warnings += [*draft.doubts, *judgement.judge(spec, draft.labels, examined)]
    for warning in made.warnings:
        say(f"      WARNING: {warning}")
    _require(wishes, made.answers)
    return made


def _examine(reference: Reference, name: str, item: bytes) -> Examined:
    try:
        return examine(reference, item)
    except CommandError:
        raise
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise CommandError(f"The picture {name} cannot be decoded: {error}.") from error


def _require(wishes: Sequence[Wish], answers: dict[str, list[Found]]) -> None:
    wrong = [text for wish in wishes if (text := unmet(wish.expected, answers[wish.name]))]
    if wrong:
        raise CommandError(f"The model does not answer as expected: {'; '.join(wrong)}.")


def confirm(warnings: Sequence[str], options: argparse.Namespace) -> None:
    """Ask before a model with warnings is served; without a person at the terminal go on.

    Raises:
        CommandError: when the answer is no.

    """
    if not warnings or options.yes or options.json or not sys.stdin.isatty():
        return
    try:
        agrees = input("Serve it all the same? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        agrees = False
    if not agrees:
        raise CommandError("The warnings were not accepted: correct the options, or give --yes.")


def line(found: Sequence[Found], *, boxes: bool) -> str:
    """Return an answer on one line."""
    if not found:
        return "no box"
    shown = found[: BOXES if boxes else LABELS]
    parts = [f"{one.label} {one.score:.3f}{_place(one)}" for one in shown]
    more = f" and {len(found) - len(shown)} more" if boxes and len(found) > len(shown) else ""
    return ", ".join(parts) + more


def _place(one: Found) -> str:
    return f" [{', '.join(f'{side:.0f}' for side in one.box)}]" if one.box else ""


def _row(one: Found) -> dict[str, Any]:
    row: dict[str, Any] = {"label": one.label, "score": one.score}
    return {**row, "box": list(one.box)} if one.box else row
