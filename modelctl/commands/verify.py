"""`modelctl verify`: compares a served model's answers with a reference that shares no code with it."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from modelctl.embedded.triton import TritonError
from modelctl.errors import CommandError
from modelctl.models import rendering
from modelctl.models.spec import TensorModel
from modelctl.models.steps import ImagePreprocess
from modelctl.options import add_json, add_models, add_port
from modelctl.reference.agreement import PIXELS, SCORE, Difference, compare, threshold_of
from modelctl.reference.samples import inputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="the model to verify")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of pictures to send (default: samples of this project)"
    )
    parser.add_argument("--texts", type=Path, metavar="FILE", help="file of texts to send, one per line")
    add_models(parser)
    parser.add_argument("--score", type=float, default=SCORE, help=f"maximum difference of a score (default: {SCORE})")
    parser.add_argument(
        "--pixels",
        type=float,
        default=PIXELS,
        help=f"maximum difference of a box's side, in pixels (default: {PIXELS})",
    )
    add_json(parser, "an object")
    add_port(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a table; return 1 when a difference is too large."""
    # These modules import ONNX Runtime, which the Triton image lacks.
    from modelctl.reference.model import Reference
    from modelctl.reference.served import Served

    (spec,) = rendering.specs(arguments.models, [arguments.name])
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
            raise CommandError(f"One of the pictures cannot be decoded: {error}: remove it.") from error
    if arguments.json:
        print(json.dumps(as_object(spec.name, differences, arguments.score, arguments.pixels), indent=2))
        return int(not all(one.is_within(arguments.score, arguments.pixels) for one in differences))
    return report(spec.name, differences, arguments.score, arguments.pixels)


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
    """Print a line for each item, with a mark where it differs too much, and a summary; return the exit code."""
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
