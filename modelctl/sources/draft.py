"""`Draft`: a model that a source has read and that is not in the repository yet, and the parts that sources share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from pydantic import ValidationError

from modelctl.console import say
from modelctl.errors import CommandError
from modelctl.graphs import networks
from modelctl.graphs.dequantize import Quantized
from modelctl.models.network import TensorRT
from modelctl.models.spec import ADAPTER, ModelSpec, TensorModel
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.model import NOT_FINITE, Arrays
from modelctl.sources import labels
from modelctl.sources.heads import options as heads

HUB = "hf:"
IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Sample:
    """One item of a tensor model and what its trial gave, by the tensors' names.

    Attributes:
        is_steady: whether the network gave the same twice; otherwise only types and numbers of axes can be compared.

    """

    given: Arrays
    made: Arrays
    is_steady: bool


@dataclass
class Draft:
    """A model as a source has read it.

    Attributes:
        spec: complete except for the network's checksum and the canary.
        network: the ONNX file, in the working folder.
        labels: one per class of the network; empty for a tensor model.
        tokenizer: `tokenizer.json` of a text model.
        original: runs the network in its own framework, for the comparison with the ONNX file; None where that is
            impossible. Its inputs and outputs are named by their roles, as in the spec.
        sample: of a tensor model: what is asked of the served model, and its answer.
        quantized: outputs that are bytes in the file and real numbers in the stored network, by the file's names.
        extra: further files for the network's version folder, by name.
        notes: sentences for the model card and the screen.
        doubts: sentences on what may be wrong, which are shown as warnings.

    """

    spec: ModelSpec
    network: Path
    labels: list[str]
    tokenizer: Path | None = None
    original: Callable[[Arrays], Arrays] | None = None
    sample: Sample | None = None
    quantized: dict[str, Quantized] = field(default_factory=dict)
    extra: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Order:
    """One call of `modelctl add`.

    Attributes:
        source: as given, or as a recipe names it.
        name: the model's name.
        options: the command's other options; None where not given.
        work: an empty folder for temporary files.

    """

    source: str
    name: str
    options: argparse.Namespace
    work: Path


PICTURES = (
    *("resize", "resize_to", "longest_edge", "size", "resample", "rounding", "pad_value"),
    *("scale", "mean", "std", "channel_order", "layout", "alpha", "no_fold"),
)
BOXES = heads.NAMES
TEXTS = ("tokenizer", "max_length")


def refuse_idle(order: Order, names: Sequence[str], where: str) -> None:
    """Refuse options that have no effect on this kind of model, which `where` names.

    Raises:
        CommandError: when one of `names` was given.

    """
    idle = [f"--{name.replace('_', '-')}" for name in names if getattr(order.options, name) is not None]
    if idle:
        raise CommandError(
            f"{', '.join(idle)} would do nothing for {where}: omit {'it' if len(idle) == 1 else 'them'}."
        )


def store(model: onnx.ModelProto, path: Path) -> None:
    """Write a network; weights over 2 GB lie beside it."""
    networks.save(model, path)


def labels_of(path: Path, classes: int | None) -> list[str]:
    """Return the names in a labels file, as `labels.read`.

    Raises:
        CommandError: when the file cannot be read, or their number is not `classes`.

    """
    return _fitting(labels.read(path), path, classes)


def _fitting(found: list[str], path: Path, classes: int | None) -> list[str]:
    if classes not in (None, len(found)):
        raise CommandError(f"The network has {classes} classes, {path} has {len(found)} labels: give one a class.")
    return found


def picture_labels(order: Order, classes: int, known: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a picture classifier's labels, and notes on them.

    A network of 1001 ImageNet classes begins with a background class: 1000 labels then fit too.

    Raises:
        CommandError: as `labels_for`.

    """
    path = order.options.labels
    if path is None or classes != IMAGENET_CLASSES + 1:
        return labels_for(order, classes, known), []
    found = labels.read(path)
    if len(found) != IMAGENET_CLASSES:
        return _fitting(found, path, classes), []
    note = f"The network has {classes} classes for {len(found)} labels: its first is taken for 'background'."
    say(f"      {note}")
    return ["background", *found], [note]


def labels_for(order: Order, classes: int | None, known: Sequence[str]) -> list[str]:
    """Return the labels that the user gave, else those that the source knows.

    Raises:
        CommandError: when there are none, or when their number does not fit.

    """
    if order.options.labels is not None:
        return labels_of(order.options.labels, classes)
    if not known:
        count = f"{classes} " if classes else ""
        raise CommandError(f"The file does not name its {count}classes: give --labels FILE, one a line.")
    if classes not in (None, len(known)):
        raise CommandError(f"The network has {classes} classes, its file names {len(known)}: give --labels FILE.")
    return list(known)


def activation_of(order: Order, made: Any, *, is_softmax: bool = False) -> str:
    """Return the activation that turns the outputs `made` [N, C] into probabilities.

    The user's choice, else `none` where each row sums to 1, or `softmax` where values lie outside 0 to 1. Probabilities
    that a softmax made and bytes rounded (`is_softmax`) may sum to less.

    Raises:
        CommandError: when the values fit neither, or when one class would get a softmax.

    """
    if made.shape[-1] == 1:
        return _activation_of_one(order.options.activation)
    if order.options.activation:
        return str(order.options.activation)
    values = made.astype(np.float64)
    if not np.isfinite(values).all():
        raise CommandError(NOT_FINITE)
    if values.min() < -1e-3 or values.max() > 1 + 1e-3:
        return "softmax"
    if is_softmax or np.allclose(values.sum(axis=-1), 1, atol=5e-3):
        return "none"
    raise CommandError(
        "The network's scores lie between 0 and 1 and do not sum to 1, so each class may have its own: give "
        "--activation none when they are probabilities, else sigmoid (each class by itself) or softmax."
    )


def _activation_of_one(asked: str | None) -> str:
    if asked in ("sigmoid", "none"):
        return asked
    raise CommandError(
        "The network has one class, and a softmax over one class is always 1: give --activation sigmoid, or none "
        "when its output is a probability."
    )


def spec_of(order: Order, terms: str = "unknown", **parts: Any) -> ModelSpec:
    """Return a spec; with `--tensorrt`, a float32 network of fixed sizes also gets a configuration for its plan.

    `terms` is the licence where the user gives none; `parts` are the spec's other keys.

    Raises:
        CommandError: when an option is out of range.

    """
    source = {"origin": order.source, "license": order.options.license or terms}
    try:
        spec = ADAPTER.validate_python({"name": order.name, "source": source, **parts})
    except ValidationError as error:
        first = error.errors()[0]
        said = f"{'.'.join(map(str, first['loc'][1:]))} {first['msg'].removeprefix('Value error, ')}".strip()
        raise CommandError(f"The options do not fit: {said}.") from error
    if not order.options.tensorrt or order.options.precision != "fp32" or _is_free(spec):
        return spec
    network = spec.network.model_copy(update={"tensorrt": TensorRT()})
    return spec.model_copy(update={"network": network})


def _is_free(spec: ModelSpec) -> bool:
    """Tell whether an input has an axis of variable size besides the batch."""
    if isinstance(spec, TensorModel):
        return any(size < 0 for tensor in spec.network.inputs.values() for size in tensor.dims or [])
    return isinstance(spec.preprocess, ImagePreprocess) and spec.preprocess.width is None


def batch_note(batch: int) -> list[str]:
    """Return the model card's note on a network that takes one item at a time; empty for others."""
    return ["The network takes one item at a time: nothing is batched."] if batch == 1 else []
