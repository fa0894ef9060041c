"""`modelctl add`: from any model to a served endpoint.

    source -> draft -> precision -> compare with the original -> write -> lint -> move -> load -> ask -> endpoint

Everything is made in a folder beside the repository and moved there when it has passed. Whatever fails, and Ctrl-C,
leaves the repository as it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from modelctl.models.tasks import NO_TASK, TASKS
from modelctl.options import add_json, add_models, add_port
from modelctl.sources import addition, find, pictures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    known = ", ".join(find.recipes())
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help=f"a recipe ({known}), hf:<repository>, a checkpoint's folder, an .onnx file, a .pt file",
    )
    parser.add_argument("--name", help="the model's name (default: from the source)")
    parser.add_argument("--task", choices=[*TASKS, NO_TASK], help="default: seen from the source")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="how it is stored")
    parser.add_argument("--examples", type=Path, metavar="DIR", help="pictures to measure int8 scales on")
    parser.add_argument("--license", help="the weights' licence")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="the classes' names, one a line")
    parser.add_argument("--activation", choices=("softmax", "sigmoid", "none"), help="what makes probabilities")
    text = "with a configuration for a TensorRT plan, which `modelctl plan` builds: until then all models run as ONNX"
    parser.add_argument("--tensorrt", action="store_true", default=None, help=text)
    parser.add_argument("--max-batch-size", type=int, default=8, metavar="N")
    parser.add_argument("--shape", type=_sizes, metavar="A,B", help="TorchScript: the sizes of one item")
    add_models(parser)
    add_json(parser, "an object")
    add_port(parser)
    pictures.add_arguments(parser)
    boxes = parser.add_argument_group("detectors (for files that do not say)")
    boxes.add_argument("--decoder", choices=("yolov5", "yolov8", "yolox", "detr", "end_to_end"))
    boxes.add_argument("--encoded", action=argparse.BooleanOptionalAction, default=None, help="yolox: relative boxes")
    boxes.add_argument("--strides", type=_sizes, metavar="8,16,32", help="yolox, encoded: pixels of a cell")
    boxes.add_argument("--box-unit", choices=("pixels", "normalized"))
    boxes.add_argument("--score-threshold", type=float)
    boxes.add_argument("--iou-threshold", type=float)
    boxes.add_argument("--max-detections", type=int)
    texts = parser.add_argument_group("texts (for files that do not say)")
    texts.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json")
    texts.add_argument("--max-length", type=int, metavar="TOKENS")


def _sizes(text: str) -> list[int]:
    return [pictures.side(part) for part in text.split(",")]


def run(arguments: argparse.Namespace) -> int:
    """Add one model; return 0 when it is in the repository and, where a server runs, served."""
    return addition.add(arguments)
