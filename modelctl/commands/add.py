"""`modelctl add`: turns a model file, a checkpoint or a recipe into a served endpoint.

    source -> draft -> precision -> compare with original -> judge -> write -> lint -> move -> load -> ask -> endpoint

The model is made in a folder beside the repository and moved into it after all checks pass. A failure or Ctrl-C leaves
the repository unchanged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from modelctl.models.tasks import NO_TASK, TASKS
from modelctl.options import add_json, add_models, add_port
from modelctl.sources import addition, find, judging, pictures
from modelctl.sources.heads import options as heads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    known = ", ".join(find.recipes())
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help=f"a recipe ({known}), hf:<repository>, a checkpoint's folder, an .onnx file, a .pt file",
    )
    parser.add_argument("--name", help="the model's name (default: from the source)")
    parser.add_argument(
        "--task",
        choices=[*TASKS, NO_TASK],
        help="what the model does; none serves its tensors (default: detected from the source)",
    )
    parser.add_argument(
        "--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="precision of the stored network"
    )
    parser.add_argument("--examples", type=Path, metavar="DIR", help="calibration pictures for int8")
    parser.add_argument("--license", help="licence of the weights")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="file with one class name per line")
    parser.add_argument(
        "--activation",
        choices=("softmax", "sigmoid", "none"),
        help="function that turns the network's outputs into probabilities",
    )
    text = "also write a configuration for a TensorRT plan; models run as ONNX until `modelctl plan` has run"
    parser.add_argument("--tensorrt", action="store_true", default=None, help=text)
    parser.add_argument(
        "--max-batch-size",
        type=int,
        default=8,
        metavar="N",
        help="largest batch (default: 8); 0: tensors without batch",
    )
    parser.add_argument(
        "--shape", type=heads.sizes, metavar="A,B", help="for TorchScript: the shape of one item, without the batch"
    )
    parser.add_argument(
        "--no-load", action="store_true", help="only write the model into the repository, without a running Triton"
    )
    add_models(parser)
    add_json(parser, "an object")
    add_port(parser)
    judging.add_arguments(parser)
    pictures.add_arguments(parser)
    heads.add_arguments(parser)
    texts = parser.add_argument_group("texts (for files that do not describe them)")
    texts.add_argument("--tokenizer", type=Path, metavar="FILE", help="the network's tokenizer.json")
    texts.add_argument("--max-length", type=pictures.side, metavar="TOKENS", help="maximum number of tokens per text")


def run(arguments: argparse.Namespace) -> int:
    """Add one model; return 0 when it has answered through Triton, or is in the repository with `--no-load`."""
    return addition.add(arguments)
