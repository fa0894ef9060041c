"""Stores a draft's network at the precision asked for, and compares it with the original.

draft.network --convert--> the stored network --compare--> a line for the model card
"""

from __future__ import annotations

from pathlib import Path

from modelctl.console import say
from modelctl.errors import CommandError
from modelctl.graphs import axes, precision, surgery
from modelctl.models.spec import TensorModel
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.agreement import PIXELS, agreement
from modelctl.reference.model import Reference, onnx_run
from modelctl.sources import folders
from modelctl.sources.draft import Draft

MIN_OVERLAP = 0.7
"""Smallest intersection over union of a box before and after a conversion to fp16 or int8."""


def convert(draft: Draft, stored_as: str, examples: Path | None) -> None:
    """Store the network as `fp32`, `fp16` or `int8`, and declare the sizes of its outputs; change `draft`.

    `examples` is a folder of pictures that calibrate int8; the project's samples by default.

    Raises:
        CommandError: when the network cannot be stored that way.

    """
    if stored_as != "fp32":
        _lower(draft, stored_as, examples)
    outputs = draft.spec.network.outputs
    dims = {tensor.name: tensor.dims or [] for tensor in outputs.values()}
    has_batch = draft.spec.network.batching.max_batch_size > 0
    sizes = surgery.declare(draft.network, dims) if has_batch else axes.declare_whole(draft.network, dims)
    draft.spec = folders.with_sizes(draft.spec, sizes)


def _lower(draft: Draft, stored_as: str, examples: Path | None) -> None:
    if isinstance(draft.spec, TensorModel):
        raise CommandError("A tensor model is stored as it is: omit --precision.")
    reference = Reference(draft.spec, draft.labels, draft.tokenizer, onnx_run(draft.network, draft.spec))
    names = {role: tensor.name for role, tensor in draft.spec.network.inputs.items()}
    items = folders.items(draft.spec, examples)
    feeds = [{names[role]: array for role, array in reference.inputs(item)[0].items()} for item in items.values()]
    text = not isinstance(draft.spec.preprocess, ImagePreprocess)
    precision.convert(draft.network, stored_as, feeds, text=text)


def compare(draft: Draft, stored_as: str) -> list[str]:
    """Compare the stored network with the original on the project's samples; return the line for the model card.

    A tensor model, and a draft without an original, are not compared: the list is empty.

    Raises:
        CommandError: when they differ by more than the precision allows.

    """
    if isinstance(draft.spec, TensorModel) or draft.original is None:
        return []
    stored = Reference(draft.spec, draft.labels, draft.tokenizer, onnx_run(draft.network, draft.spec))
    original = Reference(draft.spec, draft.labels, draft.tokenizer, draft.original)
    limit = precision.LIMITS[stored_as]
    pairs = {
        name: (stored.answer(item), original.answer(item)) for name, item in folders.items(draft.spec, None).items()
    }
    found = agreement(pairs, draft.spec, limit)
    line = found.sentence()
    say(f"      {line}")
    boxes_differ = found.pixels > PIXELS if stored_as == "fp32" else found.overlap < MIN_OVERLAP
    if found.score > limit or found.missing or found.best < found.items or boxes_differ:
        raise CommandError(f"The stored network differs too much ({line}; a score may differ by {limit}).")
    return [line]
