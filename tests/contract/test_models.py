"""Every model of the repository keeps the contract that the gateway expects, step by step."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from app.triton.served import served_model
from modelctl.models import spec as specs
from modelctl.reference.expected import content, unmet
from modelctl.reference.model import Reference

MODELS = Path(__file__).resolve().parent.parent.parent / "models"


def read(name: str) -> Any:
    """Parse a configuration."""
    return text_format.Parse((MODELS / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


FOLDERS = sorted(path.name for path in MODELS.iterdir() if path.is_dir())
ENSEMBLES = [name for name in FOLDERS if read(name).platform == "ensemble"]


def test_the_three_tasks_are_bundled() -> None:
    """Each task has exactly one default model."""
    models = [served_model(read(name), ("1",)) for name in FOLDERS]
    defaults = sorted(model.task.name for model in models if model is not None and model.default)
    assert defaults == ["image-classification", "object-detection", "text-classification"]


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_are_complete(name: str) -> None:
    """A folder has its model's name, and a version folder that git keeps."""
    assert read(name).name == name
    assert (MODELS / name / "1" / ".gitkeep").exists()


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_keep_the_contract(name: str) -> None:
    """The gateway finds no fault, the three steps bear the right names, and a canary is given."""
    model = served_model(read(name), ("1",))
    assert model is not None
    assert model.fault == ""
    assert model.steps == tuple(f"{name}_{step}" for step in ("preprocess", "network", "postprocess"))
    assert model.canary is not None
    assert set(model.canary) == {model.task.input, "label"}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_answer_as_their_owner_expects(name: str) -> None:
    """`expect` of each model.yaml holds without Triton; `modelctl verify` holds the served model against it."""
    spec = specs.read(MODELS / name / specs.FILE)
    assert not isinstance(spec, specs.TensorModel)
    reference = Reference.of(spec, MODELS)
    assert spec.expect
    wrong = [unmet(one, reference.answer(content(one, MODELS / name))) for one in spec.expect]
    assert wrong == [""] * len(spec.expect)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_one_step_is_runnable_at_a_time(name: str) -> None:
    """Every step after the first needs an output of the one before it: fan-out hangs when a queue is full."""
    steps = list(read(name).ensemble_scheduling.step)
    for before, after in pairwise(steps):
        assert set(before.output_map.values()) & set(after.input_map.values())


@pytest.mark.parametrize("name", [name for name in FOLDERS if name not in ENSEMBLES])
def test_steps_batch_without_a_queue_policy(name: str) -> None:
    """Every step batches; a queue policy would stall requests for half a second (docs/decisions/0005-queues.md)."""
    config = read(name)
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.HasField("default_queue_policy")


@pytest.mark.parametrize("name", [name for name in FOLDERS if (MODELS / name / "configs" / "tensorrt.pbtxt").exists()])
def test_plans_take_the_place_of_networks(name: str) -> None:
    """A TensorRT variant has the tensors and at least the batch size of the ONNX configuration."""
    onnx = read(name)
    text = (MODELS / name / "configs" / "tensorrt.pbtxt").read_text()
    plan = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (list(plan.input), list(plan.output)) == (list(onnx.input), list(onnx.output))
    assert plan.max_batch_size >= onnx.max_batch_size
    assert (plan.name, plan.platform, plan.default_model_filename) == (name, "tensorrt_plan", "model.plan")
