"""Folds the recipe of a draft's pictures into its network, so that pixels pass between the steps.

    network + recipe --modelctl.graphs.folding--> a network of UINT8, and a recipe without arithmetic

On the samples the folded nodes must make what the reference makes by the recipe, and the folded network must answer as
the network did. The network gets what the folded nodes make then: a dynamically quantised one would turn 1e-7 between
two ways to compute a recipe into 0.03 of a score. A draft that fails stays as it is: folding saves time, no more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from modelctl.console import say
from modelctl.errors import CommandError
from modelctl.graphs import folding, networks
from modelctl.graphs.folding import Recipe
from modelctl.models.network import Folded
from modelctl.models.spec import EnsembleSpec, TensorModel
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.agreement import PIXELS, SCORE, agreement
from modelctl.reference.model import Arrays, Reference, onnx_run
from modelctl.sources import folders
from modelctl.sources.draft import Draft

Array = npt.NDArray[Any]
TOLERANCE = {"FP32": 1e-5, "FP16": 1e-3}
"""Largest difference of two prepared numbers, as a part of the largest: a few roundings of the type."""
RECIPE = ("scale", "mean", "std", "channel_order", "layout")


def fold(draft: Draft) -> None:
    """Fold the recipe into the network of `draft`, and change both; leave a draft that has none as it is."""
    spec = draft.spec
    if isinstance(spec, TensorModel) or not isinstance(spec.preprocess, ImagePreprocess):
        return
    if spec.network.inputs["image"].dtype == "UINT8":
        return
    try:
        made, path = _folded(draft, spec, spec.preprocess)
    except CommandError as error:
        _note(draft, f"The network takes normalised pictures, since {str(error).rstrip('.')}.")
        return
    path.replace(draft.network)  # in its place, because weights in a file of their own bear its name
    draft.spec = made
    _note(draft, f"The network takes pixels, UINT8 NHWC; inside are {_words(spec.preprocess)}.")


def _folded(draft: Draft, spec: EnsembleSpec, how: ImagePreprocess) -> tuple[EnsembleSpec, Path]:
    """Return the spec and the file of the folded network; raises CommandError where it is not the same."""
    name = spec.network.inputs["image"].name
    model = onnx.load(str(draft.network), load_external_data=False)
    recipe = Recipe(how.scale, tuple(how.mean), tuple(how.std), how.channel_order, how.layout)
    folding.fold(model, name, recipe)
    path = draft.network.with_name("folded.onnx")  # beside weights that lie in files of their own
    networks.save(model, path)
    front = networks.session(folding.front(model, name))
    made = _of_bytes(spec, how)
    unfolded = onnx_run(draft.network, spec)

    def run(inputs: Arrays) -> Arrays:
        return unfolded({**inputs, "image": _run(front, inputs["image"])})

    items = folders.items(spec, None)
    before = Reference(spec, draft.labels, None, run)
    bytewise = [Reference(made, draft.labels, None, one) for one in (onnx_run(path, made), run)]
    pixels = {item: bytewise[0].inputs(data)[0]["image"] for item, data in items.items()}
    for item, data in items.items():
        _require_close(item, _run(front, pixels[item]), before.inputs(data)[0]["image"])
    pairs = {item: (bytewise[0].answer(data), bytewise[1].answer(data)) for item, data in items.items()}
    found = agreement(pairs, made)
    if found.score > SCORE or found.pixels > PIXELS or found.missing or found.best < found.items:
        raise CommandError(f"it would answer otherwise with its recipe inside ({found.sentence()})")
    return made, path


def _require_close(item: str, made: Array, expected: Array) -> None:
    if made.shape != expected.shape or made.dtype != expected.dtype:
        raise CommandError(f"its recipe gives {made.dtype} {made.shape} of {item} inside the network")
    tolerance = TOLERANCE["FP16" if made.dtype == np.float16 else "FP32"]
    gap = float(np.abs(made.astype(np.float64) - expected.astype(np.float64)).max())
    if not gap <= tolerance * float(np.abs(expected).max()):
        raise CommandError(f"its recipe differs by {gap:.2g} inside the network on {item}")


def _of_bytes(spec: EnsembleSpec, how: ImagePreprocess) -> EnsembleSpec:
    """Return the spec of the folded network, with the former recipe as a record."""
    image = spec.network.inputs["image"]
    record = Folded.model_validate({"dtype": image.dtype, **{name: getattr(how, name) for name in RECIPE}})
    plain = {
        "scale": 1.0,
        "mean": [0.0] * len(how.mean),
        "std": [1.0] * len(how.std),
        "channel_order": "RGB" if how.channel_order == "BGR" else how.channel_order,
        "layout": "NHWC",
    }
    inputs = {"image": image.model_copy(update={"dtype": "UINT8"})}
    network = spec.network.model_copy(update={"inputs": inputs, "folded": record})
    return spec.model_copy(update={"preprocess": how.model_copy(update=plain), "network": network})


def _words(how: ImagePreprocess) -> str:
    return f"(x * {how.scale:.6g} - {how.mean}) / {how.std}, {how.channel_order} and {how.layout}"


def _run(front: Any, pixels: Array) -> Array:
    (made,) = networks.run(front, {front.get_inputs()[0].name: pixels}).values()
    return made


def _note(draft: Draft, text: str) -> None:
    say(f"      {text}")
    draft.notes.append(text)
