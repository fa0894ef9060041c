"""Writes the folders of an added model: its files, its spec, its canary and its card."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from modelctl.graphs import external
from modelctl.models import rendering
from modelctl.models import spec as specs
from modelctl.models.spec import FILE, Canary, ModelSpec, ObjectDetection, TensorModel
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.model import Reference, onnx_run
from modelctl.reference.samples import inputs
from modelctl.sources.draft import Draft

CANARY_SIDE = 128
CLEAR_LEAD = 0.05
"""Smallest lead in score of the canary's first label over the next one, so that every machine ranks it first."""


def write(draft: Draft, made: Path, lines: list[str]) -> ModelSpec:
    """Write a model's folders into the empty repository `made`; return the spec as written.

    `lines` are the model card's lines on the comparison with the original.
    """
    spec = draft.spec.model_copy(
        update={"source": draft.spec.source.model_copy(update={"sha256": _sha256(draft.network)})}
    )
    folder, network = made / spec.name, made / spec.network_name / "1"
    folder.mkdir(parents=True)
    network.mkdir(parents=True, exist_ok=True)
    shutil.copy(draft.network, network / "model.onnx")
    if (beside := external.data_of(draft.network)).is_file():  # weights over 2 GB
        shutil.copy(beside, network)
    for name, path in draft.extra.items():
        shutil.copy(path, network / name)
    if draft.labels:
        (network.parent / "labels.txt").write_text("\n".join(draft.labels) + "\n", "utf-8")
    if draft.tokenizer:
        step = made / f"{spec.name}_preprocess"
        step.mkdir()
        shutil.copy(draft.tokenizer, step / "tokenizer.json")
    if not isinstance(spec, TensorModel):
        spec = spec.model_copy(update={"canary": _canary(spec, draft, folder)})
    specs.write(spec, folder / FILE)
    (folder / "MODEL_CARD.md").write_text(_card(spec, draft, lines), "utf-8")
    spec = specs.read(folder / FILE)
    rendering.write(spec, made)
    return spec


def with_sizes(spec: ModelSpec, sizes: Mapping[str, list[int]]) -> ModelSpec:
    """Return a spec with these sizes of its outputs, by the network's names of the outputs."""
    outputs = {
        role: tensor.model_copy(update={"dims": sizes[tensor.name]}) for role, tensor in spec.network.outputs.items()
    }
    return spec.model_copy(update={"network": spec.network.model_copy(update={"outputs": outputs})})


def items(spec: ModelSpec, folder: Path | None) -> dict[str, bytes]:
    """Return sample pictures or texts for a model; the pictures of `folder`, where one is given."""
    assert not isinstance(spec, TensorModel)  # noqa: S101 - callers check
    is_picture = isinstance(spec.preprocess, ImagePreprocess)
    return inputs(is_picture, folder if is_picture else None, None)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canary(spec: ModelSpec, draft: Draft, folder: Path) -> Canary:
    """Return a canary: a sample, and the label that the model ranks first when its lead is above `CLEAR_LEAD`."""
    assert not isinstance(spec, TensorModel)  # noqa: S101 - callers check
    item = next(iter(items(spec, None).values()))
    is_picture = isinstance(spec.preprocess, ImagePreprocess)
    if is_picture:
        picture = Image.open(io.BytesIO(item))
        picture.thumbnail((CANARY_SIDE, CANARY_SIDE))
        picture.save(folder / "canary.jpg", quality=80)
        item = (folder / "canary.jpg").read_bytes()
    found = Reference(spec, draft.labels, draft.tokenizer, onnx_run(draft.network, spec)).answer(item)
    floor = spec.postprocess.score_threshold if isinstance(spec, ObjectDetection) else 0.0
    second = max([one.score for one in found[1:] if one.label != found[0].label], default=floor)
    label = found[0].label if found and found[0].score - max(second, floor) > CLEAR_LEAD else None
    return Canary(image="canary.jpg" if is_picture else None, text=None if is_picture else item.decode(), label=label)


def _card(spec: ModelSpec, draft: Draft, lines: list[str]) -> str:
    rows = [
        f"# {spec.name}",
        "",
        f"- Task: {spec.task}. From: `{spec.source.origin}`. Licence of the weights: {spec.source.license}.",
        f"- Network: {spec.network_name}/1/model.onnx, sha256 {spec.source.sha256}.",
        *(f"- {line}" for line in (*draft.notes, *(f"Against the original: {line}." for line in lines))),
        "",
        "Written by `modelctl add`.",
        "",
    ]
    return "\n".join(rows)
