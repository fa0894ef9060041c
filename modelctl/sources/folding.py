"""Folds the recipe of a draft's pictures into its network, so that UINT8 passes between the steps.

    stored network + recipe --modelctl.graphs.folding--> a network of UINT8, and a recipe without arithmetic
    front of that network <--the same tensors on the samples?--> modelctl.reference, by the recipe as it was

The comparison with the original that follows gives both networks what the front makes: a dynamically quantised network
would turn a difference of 1e-7 between two ways to compute the recipe into 0.03 of a score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from modelctl.console import say
from modelctl.errors import CommandError
from modelctl.graphs import folding, networks
from modelctl.graphs.folding import Recipe
from modelctl.models.network import Folded
from modelctl.models.spec import ModelSpec, TensorModel
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.pictures import prepare
from modelctl.sources import folders
from modelctl.sources.draft import Draft

TOLERANCE = {"FP32": 1e-5, "FP16": 1e-3}
"""Largest difference of a number, as a part of the largest number: a few roundings of the type."""
BYTES = {"scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3, "channel_order": "RGB", "layout": "NHWC"}


def fold(draft: Draft) -> None:
    """Fold the recipe into the network of `draft`, and change both; leave a draft that has none as it is.

    Raises:
        CommandError: when the folded graph does not compute the recipe.

    """
    how = None if isinstance(draft.spec, TensorModel) else draft.spec.preprocess
    if not isinstance(how, ImagePreprocess) or draft.spec.network.inputs["image"].dtype == "UINT8":
        return
    name = draft.spec.network.inputs["image"].name
    model = onnx.load(str(draft.network), load_external_data=False)
    try:
        folding.fold(model, name, _recipe(how))
    except CommandError as error:
        _note(draft, f"The network takes normalised pictures, since {error}.")
        return
    front = networks.session(folding.front(model, name))
    spec = _of_bytes(draft.spec, how)
    _require_equal(draft.spec, spec, front)
    networks.save(model, draft.network)
    if draft.original is not None:
        original = draft.original
        draft.original = lambda inputs: original({"image": _run(front, inputs["image"])})
    draft.spec = spec
    _note(draft, f"The network takes pixels, UINT8 NHWC in RGB; inside are {_words(how)}.")


def _recipe(how: ImagePreprocess) -> Recipe:
    return Recipe(how.scale, tuple(how.mean), tuple(how.std), how.channel_order, how.layout)


def _words(how: ImagePreprocess) -> str:
    order = f", {how.channel_order} and {how.layout}"
    return f"(x * {how.scale:.6g} - {how.mean}) / {how.std}{order}"


def _of_bytes(spec: Any, how: ImagePreprocess) -> ModelSpec:
    """Return the spec of the folded network, with the former recipe as a record."""
    image = spec.network.inputs["image"]
    record = Folded(dtype=image.dtype, **{name: getattr(how, name) for name in BYTES})
    inputs = {"image": image.model_copy(update={"dtype": "UINT8"})}
    made: ModelSpec = spec.model_copy(
        update={
            "preprocess": how.model_copy(update=BYTES),
            "network": spec.network.model_copy(update={"inputs": inputs, "folded": record}),
        }
    )
    return made


def _require_equal(before: Any, after: Any, front: Any) -> None:
    """Raise CommandError unless the front makes of each sample's pixels what the recipe makes of the sample."""
    dtype = before.network.inputs["image"].dtype
    for name, item in folders.items(before, None).items():
        expected = prepare(item, before.preprocess, dtype)[0].astype(np.float64)
        made = _run(front, prepare(item, after.preprocess, "UINT8")[0]).astype(np.float64)
        if made.shape != expected.shape:
            raise CommandError(f"The folded recipe makes {made.shape} of {name} instead of {expected.shape}.")
        gap = float(np.abs(made - expected).max())
        if not gap <= TOLERANCE[dtype] * float(np.abs(expected).max()):
            raise CommandError(f"The folded recipe differs by {gap:.2g} on {name}: give --no-fold.")


def _run(front: Any, pixels: Any) -> Any:
    (made,) = networks.run(front, {front.get_inputs()[0].name: pixels}).values()
    return made


def _note(draft: Draft, text: str) -> None:
    say(f"      {text}")
    draft.notes.append(text)
