"""A spec -> configurations: connections between steps, warm-up, and parts of single configurations."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelctl.errors import CommandError
from modelctl.models import configs, spec
from modelctl.models.network import OnnxRuntime, TensorRT

MODELS = Path(__file__).resolve().parents[3] / "models"
ENSEMBLES = ("efficientnet_lite0", "lite_detector", "minilm_sentiment")


def read(name: str) -> Any:
    """Return the spec of a bundled model."""
    return spec.read(MODELS / name / "model.yaml")


@pytest.mark.parametrize("name", ENSEMBLES)
def test_each_input_is_an_earlier_output(name: str) -> None:
    """An ensemble maps all inputs of a step and only existing outputs, whatever the network's own names are."""
    made = configs.all_of(read(name), MODELS / name)
    ensemble = made[name]
    known = {tensor.name for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        config = made[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in config.input}
        assert set(step.output_map) <= {tensor.name for tensor in config.output}
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())
    assert {tensor.name for tensor in ensemble.output} <= known
    assert [step.model_name for step in ensemble.ensemble_scheduling.step] == [
        f"{name}_{step}" for step in ("preprocess", "network", "postprocess")
    ]


def test_variants_have_nothing_of_onnx_runtime() -> None:
    """A plan runs on a GPU from its own file; TorchScript has no warm-up."""
    model = read("lite_detector")
    network = model.network.model_copy(update={"torchscript": True, "tensorrt": TensorRT(instances=3)})
    made = configs.variants(model.model_copy(update={"network": network}))
    assert {name: (one.platform, one.default_model_filename) for name, one in made.items()} == {
        "tensorrt": ("tensorrt_plan", "model.plan"),
        "pytorch": ("pytorch_libtorch", "model.pt"),
    }
    assert not any(one.backend or one.parameters for one in made.values())
    (group,) = made["tensorrt"].instance_group
    assert (group.count, group.kind) == (3, configs.pb.ModelInstanceGroup.KIND_GPU)
    assert (len(made["tensorrt"].model_warmup), len(made["pytorch"].model_warmup)) == (1, 0)


def test_an_instance_has_one_thread_unless_the_model_says_more() -> None:
    """NVIDIA's ONNX Runtime backend lets several threads spin, which costs the CPU of the other steps."""
    model = read("lite_detector")
    for runtime, threads in ((OnnxRuntime(), "1"), (OnnxRuntime(threads=4), "4")):
        network = model.network.model_copy(update={"onnxruntime": runtime})
        made = configs.network(model.model_copy(update={"network": network}))
        assert made.parameters["intra_op_thread_count"].string_value == threads


def test_only_the_network_waits_to_fill_a_batch() -> None:
    """Each step has a bounded queue; delays of all steps would add up."""
    model = read("lite_detector")
    batching = model.network.batching.model_copy(update={"queue_delay_us": 700, "max_queue_size": 5})
    network = model.network.model_copy(update={"batching": batching})
    made = configs.all_of(model.model_copy(update={"network": network}), MODELS / "lite_detector")
    del made["lite_detector"]
    batchings = {name.rpartition("_")[2]: config.dynamic_batching for name, config in made.items()}
    assert {name: one.max_queue_delay_microseconds for name, one in batchings.items()} == {
        "preprocess": 0,
        "network": 700,
        "postprocess": 0,
    }
    assert {one.default_queue_policy.max_queue_size for one in batchings.values()} == {5}


def test_warm_up_sends_the_canary_and_tokens() -> None:
    """Bytes have their length before them; a text network gets the most tokens that its texts may have."""
    model = read("minilm_sentiment")
    data = configs.warmup_data(model, MODELS / "minilm_sentiment")
    canary = data["minilm_sentiment_preprocess/warmup/canary"]
    assert struct.unpack("<I", canary[:4]) == (len(canary) - 4,)
    assert canary[4:].decode() == model.canary.text
    assert data["minilm_sentiment_network/warmup/ones"] == np.ones(model.preprocess.max_length, np.int64).tobytes()


def test_a_canary_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=rf"^The canary {tmp_path}/.* cannot be read: No such file"):
        configs.all_of(read("lite_detector"), tmp_path)


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (False, "false"), (0.1, "0.1"), (1 / 3, "0.3333333333"), ([1.0, 2], "1,2")]
)
def test_parameters_are_texts_as_the_steps_read_them(value: object, text: str) -> None:
    assert configs._text(value) == text
