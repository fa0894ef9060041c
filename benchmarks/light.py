"""A model repository whose models answer at once, so that a request costs the gateway's CPU time and little else.

light, light_2, ...   ensembles for text-classification: one step each, which ignores its input (light_step.py)
light_image           the same for image-classification: pictures are not decoded
tensors_1, ...        models without a task, which are never called: each adds an index entry and a process
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

STEP = Path(__file__).with_name("light_step.py")
BACKEND, TEXT, IMAGE = "light", "light", "light_image"
MAX_BATCH_SIZE = 8

Tensors = Mapping[str, tuple[int, Sequence[int]]]
RANKING: Tensors = {"label": (pb.TYPE_STRING, [-1]), "score": (pb.TYPE_FP32, [-1])}
TENSORS: Mapping[str, tuple[Tensors, Tensors]] = {
    "text-classification": (
        {"text": (pb.TYPE_STRING, [1])},
        {**RANKING, "token_count": (pb.TYPE_INT32, [1]), "truncated": (pb.TYPE_BOOL, [1])},
    ),
    "image-classification": (
        {"image": (pb.TYPE_STRING, [1])},
        {**RANKING, "class_id": (pb.TYPE_INT32, [-1]), "image_size": (pb.TYPE_INT32, [2])},
    ),
}
"""Task -> inputs and outputs of its ensembles."""


def write(folder: Path, ensembles: int, tensor_models: int) -> None:
    """Write a repository, `models`, and its backend's folder, `backends`, into an empty folder.

    Args:
        folder: created if it is missing.
        ensembles: number for texts, 1 or more; the first is the default and has a canary.
        tensor_models: number, 0 or more.

    """
    (folder / "backends" / BACKEND).mkdir(parents=True)
    shutil.copyfile(STEP, folder / "backends" / BACKEND / "model.py")
    models = folder / "models"
    for number in range(1, ensembles + 1):
        _ensemble(models, TEXT if number == 1 else f"{TEXT}_{number}", "text-classification", default=number == 1)
    _ensemble(models, IMAGE, "image-classification", default=False)
    for number in range(1, tensor_models + 1):
        _put(models, _step(f"tensors_{number}", {"x": (pb.TYPE_FP32, [2])}, {"y": (pb.TYPE_FP32, [2])}))


def _ensemble(models: Path, name: str, task: str, *, default: bool) -> None:
    given, answer = TENSORS[task]
    step = f"{name}_step"
    config = pb.ModelConfig(name=name, platform="ensemble", max_batch_size=MAX_BATCH_SIZE)
    _add(config, given, answer)
    config.ensemble_scheduling.step.add(
        model_name=step,
        model_version=-1,
        input_map={tensor: tensor for tensor in given},
        output_map={tensor: tensor for tensor in answer},
    )
    config.parameters["task"].string_value = task
    if default:
        config.parameters["default"].string_value = "true"
        config.parameters["canary"].string_value = json.dumps({"text": "anything"})
    _put(models, config)
    _put(models, _step(step, given, answer))


def _step(name: str, given: Tensors, answer: Tensors) -> Any:
    config = pb.ModelConfig(name=name, backend=BACKEND, max_batch_size=MAX_BATCH_SIZE)
    _add(config, given, answer)
    config.dynamic_batching.SetInParent()
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    return config


def _add(config: Any, given: Tensors, answer: Tensors) -> None:
    for field, tensors in ((config.input, given), (config.output, answer)):
        for name, (data_type, dims) in tensors.items():
            field.add(name=name, data_type=data_type, dims=dims)


def _put(models: Path, config: Any) -> None:
    (models / config.name / "1").mkdir(parents=True)
    (models / config.name / "config.pbtxt").write_text(text_format.MessageToString(config, as_utf8=True), "utf-8")
