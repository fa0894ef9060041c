"""`modelctl verify`: compares a served model's answers with a reference that shares no code with it."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from modelctl.embedded.triton import TritonError
from modelctl.errors import CommandError
from modelctl.models import rendering
from modelctl.models.spec import TensorModel
from modelctl.models.steps import ImagePreprocess
from modelctl.options import add_json, add_models, add_port
from modelctl.reference import report
from modelctl.reference.agreement import PIXELS, compare, threshold_of
from modelctl.reference.samples import inputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="the model to verify")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of pictures to send (default: samples of this project)"
    )
    parser.add_argument("--texts", type=Path, metavar="FILE", help="file of texts to send, one per line")
    add_models(parser)
    parser.add_argument(
        "--score",
        type=float,
        help="maximum difference of a score (default: 0.001; 0.01 for dynamically quantised networks)",
    )
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
    from modelctl.reference import limits
    from modelctl.reference.model import Reference
    from modelctl.reference.served import Served, pair

    (spec,) = rendering.specs(arguments.models, [arguments.name])
    if isinstance(spec, TensorModel):
        raise CommandError(f"{spec.name} serves tensors, not a task: there is nothing to verify it against.")
    try:
        reference = Reference.of(spec, arguments.models)
        network = arguments.models / spec.network_name / "1" / "model.onnx"
        score = limits.score_limit(network) if arguments.score is None else arguments.score
    except CommandError:
        raise
    except Exception as error:
        short = " ".join(str(error).split())[:300]
        raise CommandError(f"The files of {spec.name} cannot be read, so there is no reference: {short}") from error
    items = inputs(isinstance(spec.preprocess, ImagePreprocess), arguments.images, arguments.texts)
    with Served(f"127.0.0.1:{arguments.grpc_port}") as served:
        try:
            differences = []
            for name, item in items.items():
                made = pair(served, reference, item)
                difference = compare(name, made.served, made.expected, threshold_of(spec), score)
                differences.append(replace(difference, levels=made.levels))
        except TritonError as error:
            raise CommandError(f"{spec.name} could not be asked: {error}. Is it loaded?") from error
        except OSError as error:
            raise CommandError(f"One of the pictures cannot be decoded: {error}: remove it.") from error
    allowed = report.Limits(score, arguments.pixels, limits.level_limit(spec.preprocess))
    if arguments.json:
        print(json.dumps(report.as_object(spec.name, differences, allowed), indent=2))
        return int(not all(one.is_within(*allowed) for one in differences))
    return report.show(spec.name, differences, allowed)
