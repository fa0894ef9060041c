"""Names every option that a source lacks in one sentence, before anything is run.

What only a run tells (the activation of scores whose graph does not end in a sigmoid) is asked for
later, when it is known to be needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx

from modelctl.errors import CommandError
from modelctl.graphs.networks import Port
from modelctl.sources import exclusive, labels
from modelctl.sources.draft import Order
from modelctl.sources.pictures import IMAGENET

ACTIVATION = "--activation (sigmoid for scores of each class by itself, none where they are probabilities, softmax)"
NORMALISATION = ("scale", "mean", "std")


@dataclass
class Missing:
    """What a file does not say, and the options that say it."""

    lacks: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    def add(self, lack: str, *options: str) -> None:
        """Note one thing that is missing."""
        self.lacks.append(lack)
        self.options += options

    def refuse(self, example: str = "") -> None:
        """Raise CommandError when anything is missing.

        The activation alone is asked for after the run, which can say more of the scores.
        """
        if self.options not in ([], [ACTIVATION]):
            said = " and ".join(filter(None, (", ".join(self.lacks[:-1]), self.lacks[-1])))
            raise CommandError(f"The file {said}: give {', '.join(self.options)}.{example}")


def require_of_pictures(order: Order, given: Port, known: dict[str, Any], missing: Missing) -> None:
    """Refuse a network for pictures when options are missing; `missing` holds what its task lacks already.

    Raises:
        CommandError: one sentence with all missing options.

    """
    options, found = order.options, Missing()
    needed = ("resize", *(() if given.dtype == "UINT8" else NORMALISATION))
    recipe = [f"--{name.replace('_', '-')}" for name in needed if getattr(options, name) is None and name not in known]
    if recipe:
        found.add("does not say how its pictures were prepared", *recipe)
    if (
        options.layout is None
        and len(given.shape) == 4
        and given.shape[1] == given.shape[3]
        and given.shape[1] in (3, None)
    ):
        found.add("does not tell the layout of its input", "--layout NCHW or NHWC")
    if _has_free_sizes(given) and not (options.size or known.get("size") or options.resize == "shortest_edge"):
        found.add("takes pictures of any size", "--size HEIGHT,WIDTH")
    both = Missing(found.lacks + missing.lacks, found.options + missing.options)
    both.refuse(f" (Most ImageNet networks of PyTorch: {IMAGENET})" if recipe else "")


def of_classifier(order: Order, model: onnx.ModelProto, output: Port, known: dict[str, Any]) -> Missing:
    """Return what a classifier with the scores `output` lacks."""
    missing = of_labels(order, known, output.shape[1])
    if not (order.options.activation or known.get("activation")) and _needs_activation(model, output):
        missing.add("does not say whether its scores are of each class by itself", ACTIVATION)
    return missing


def of_labels(order: Order, known: dict[str, Any], classes: int | None = None) -> Missing:
    """Return what a network lacks whose file may name its classes."""
    missing = Missing()
    if order.options.labels is None and not known.get("labels"):
        missing.add(f"does not name its {f'{classes} ' if classes else ''}classes", "--labels FILE")
    return missing


def require_of_texts(order: Order, model: onnx.ModelProto, output: Port, known: dict[str, Any]) -> None:
    """Refuse a text classifier when options are missing.

    Raises:
        CommandError: one sentence with all missing options.

    """
    missing = of_classifier(order, model, output, known)
    names = labels.read(order.options.labels, quiet=True) if order.options.labels else known.get("labels", [])
    is_open = output.shape[1] != 1 and _end(model, output) not in ("Softmax", "Sigmoid")
    if not order.options.activation and is_open and names and not exclusive.is_settled(names):
        missing.add("does not say whether a text may have several labels", exclusive.ASK)
    if order.options.tokenizer is None:
        missing.add("does not hold its tokenizer", "--tokenizer tokenizer.json")
    missing.refuse()


def _has_free_sizes(given: Port) -> bool:
    return len(given.shape) == 4 and sum(size is None for size in given.shape[1:]) >= 2


def _needs_activation(model: onnx.ModelProto, output: Port) -> bool:
    """Tell whether scores are one, or come from a sigmoid: of each class by itself, or something to be activated."""
    return output.shape[1] == 1 or _end(model, output) == "Sigmoid"


def _end(model: onnx.ModelProto, output: Port) -> str:
    """Return the type of the operator that makes an output."""
    return next((node.op_type for node in model.graph.node if output.name in node.output), "")
