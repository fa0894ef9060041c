"""`modelctl verify`: asks the served model, and holds its answers against a reference that shares no code with it."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from modelctl import render
from modelctl.commandline import add_json
from modelctl.errors import CommandError
from modelctl.reference.answers import Found, iou
from modelctl.server import add_port
from modelctl.spec import EnsembleSpec, ImagePreprocess, ObjectDetection, TensorModel
from modelctl.triton import TritonError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
SAMPLES = Path(__file__).parent / "samples"
SCORE, PIXELS = 1e-3, 1.0


@dataclass(frozen=True)
class Difference:
    """How one served answer differs from the reference's."""

    item: str
    best: bool
    score: float
    pixels: float
    missing: int
    overlap: float = 1.0

    def is_within(self, score: float, pixels: float) -> bool:
        """Tell whether it is the same answer up to rounding."""
        return self.best and self.score <= score and self.pixels <= pixels and not self.missing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument("--images", type=Path, metavar="DIR", help="pictures to ask about (default: a few of ours)")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="texts to ask about, one a line")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    parser.add_argument("--score", type=float, default=SCORE, help=f"largest difference of a score ({SCORE})")
    parser.add_argument("--pixels", type=float, default=PIXELS, help=f"largest difference of a box's side ({PIXELS})")
    add_json(parser, "an object")
    add_port(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a table; return 1 when a difference is too large."""
    from modelctl.reference.model import Reference
    from modelctl.served import Served

    (spec,) = render.specs(arguments.models, [arguments.name])
    if isinstance(spec, TensorModel):
        raise CommandError(f"{spec.name} serves tensors, not a task: there is nothing to verify it against.")
    try:
        reference = Reference.of(spec, arguments.models)
    except CommandError:
        raise
    except Exception as error:
        short = " ".join(str(error).split())[:300]
        raise CommandError(f"The files of {spec.name} cannot be read, so there is no reference: {short}") from error
    items = inputs(isinstance(spec.preprocess, ImagePreprocess), arguments.images, arguments.texts)
    with Served(f"127.0.0.1:{arguments.grpc_port}") as served:
        try:
            differences = [
                compare(name, served.answer(spec, item), reference.answer(item), threshold_of(spec))
                for name, item in items.items()
            ]
        except TritonError as error:
            raise CommandError(f"{spec.name} could not be asked: {error}. Is it loaded?") from error
        except OSError as error:
            raise CommandError(f"One of the pictures cannot be decoded: {error}: take it away.") from error
    if arguments.json:
        print(json.dumps(as_object(spec.name, differences, arguments.score, arguments.pixels), indent=2))
        return int(not all(one.is_within(arguments.score, arguments.pixels) for one in differences))
    return report(spec.name, differences, arguments.score, arguments.pixels)


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


def threshold_of(spec: EnsembleSpec) -> float:
    """Return the score that decides what is in an answer; 0 where everything is."""
    return spec.postprocess.score_threshold if isinstance(spec, ObjectDetection) else 0.0


@dataclass(frozen=True)
class Agreement:
    """How two ways of answering agree on a few items.

    `overlap` is the least intersection over union of two boxes that stand for one object; 1 where there are no boxes.
    """

    items: int
    best: int
    score: float
    pixels: float
    missing: int
    overlap: float

    def sentence(self) -> str:
        """Return it in words."""
        text = f"{self.best} of {self.items} first labels agree, scores differ by {self.score:.2g} at most"
        boxes = f", boxes overlap by {self.overlap:.3f} at least and {self.missing} have no counterpart"
        return text + (boxes if self.pixels or self.missing or self.overlap < 1 else "")


def agreement(
    pairs: Mapping[str, tuple[list[Found], list[Found]]], spec: EnsembleSpec, tolerance: float = SCORE
) -> Agreement:
    """Return how pairs of answers, (one way, the other way) by item, agree."""
    found = [compare(name, one, other, threshold_of(spec), tolerance) for name, (one, other) in pairs.items()]
    return Agreement(
        items=len(found),
        best=sum(one.best for one in found),
        score=max(one.score for one in found),
        pixels=max(one.pixels for one in found),
        missing=sum(one.missing for one in found),
        overlap=min(one.overlap for one in found),
    )


def compare(
    item: str, served: list[Found], expected: list[Found], threshold: float, tolerance: float = SCORE
) -> Difference:
    """Match each expected label or box with the closest served one of its class.

    What scores within `tolerance` of the threshold may be there or not.
    """
    left = list(served)
    score, pixels, missing, overlap = 0.0, 0.0, 0, 1.0
    for one in expected:
        same = [other for other in left if other.label == one.label and other.class_id in (one.class_id, -1)]
        if not same:
            missing += one.score - threshold > tolerance
            continue
        closest = min(same, key=lambda other: (_apart(one, other), abs(one.score - other.score)))
        left.remove(closest)
        score, pixels = max(score, _gap(one.score, closest.score)), max(pixels, _apart(one, closest))
        overlap = min(overlap, iou(np.array(one.box), np.array(closest.box))) if one.box else overlap
    missing += sum(not one.score - threshold <= tolerance for one in left)
    best = not expected or not served or served[0].label == expected[0].label or _is_tie(expected, tolerance)
    return Difference(item, best, score, pixels, missing, overlap)


def _is_tie(found: list[Found], tolerance: float) -> bool:
    return len(found) > 1 and found[0].score - found[1].score <= 2 * tolerance


def _apart(one: Found, other: Found) -> float:
    return max((_gap(a, b) for a, b in zip(one.box, other.box, strict=True)), default=0.0)


def _gap(one: float, other: float) -> float:
    """Return how far two numbers are apart; what is no number is far from everything."""
    gap = abs(one - other)
    return gap if math.isfinite(gap) else math.inf


def as_object(name: str, differences: list[Difference], score: float, pixels: float) -> dict[str, object]:
    """Return what `report` prints; a difference that is not finite is null, since JSON has no such number."""
    items = [
        {
            key: value if not isinstance(value, float) or math.isfinite(value) else None
            for key, value in asdict(one).items()
        }
        | {"same": one.is_within(score, pixels)}
        for one in differences
    ]
    return {"name": name, "same": all(item["same"] for item in items), "score": score, "pixels": pixels, "items": items}


def report(name: str, differences: list[Difference], score: float, pixels: float) -> int:
    """Print a line for each item that differs, and a summary; return the exit code."""
    print(f"{'item':42}{'best':6}{'score':>10}{'pixels':>8}{'missing':>9}")
    bad = 0
    for one in differences:
        fine = one.is_within(score, pixels)
        bad += not fine
        print(
            f"{one.item:42}{'same' if one.best else 'other':6}{one.score:10.6f}{one.pixels:8.2f}{one.missing:9}"
            f"{'' if fine else '  <-'}"
        )
    verdict = "answers as its reference" if not bad else f"differs from its reference on {bad} of {len(differences)}"
    print(f"{name} {verdict} (limits: {score} in score, {pixels} pixels in a box).")
    return int(bad > 0)
