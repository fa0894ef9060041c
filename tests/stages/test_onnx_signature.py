"""A config's tensors fit a network by the rules of NVIDIA's ONNX Runtime backend."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from stages.config import ConfigError
from stages.onnx_signature import check_inputs, check_outputs


def tensor(shape: list[Any], name: str = "X", kind: str = "tensor(float)") -> Any:
    """Return a tensor as ONNX Runtime describes it."""
    return SimpleNamespace(name=name, type=kind, shape=shape)


def config(max_batch_size: int = 8, dims: tuple[str, ...] = ("2",), **entry: Any) -> dict[str, Any]:
    """Return a config with one tensor X, as input and as output; Triton writes sizes as strings."""
    tensors = [{"name": "X", "data_type": "TYPE_FP32", "dims": list(dims), **entry}]
    return {"max_batch_size": max_batch_size, "input": tensors, "output": tensors}


@pytest.mark.parametrize(
    ("entry", "network"),
    [
        (config(dims=("1", "2"), reshape={"shape": ["2"]}), ["N", 2]),
        (config(dims=("1",), reshape={"shape": []}), ["N"]),
        (config(dims=("1",), reshape={}), ["N"]),
        (config(0, dims=("4",), reshape={"shape": ["2", "2"]}), [2, 2]),
        (config(0, dims=("1",)), []),
        (config(0, dims=("1", "1")), []),
    ],
)
def test_a_reshape_stands_for_the_dims(entry: dict[str, Any], network: list[Any]) -> None:
    """Triton reshapes before and after the network; a single number has dims of ones."""
    check_inputs(entry, [tensor(network)])
    check_outputs(entry, [tensor(network)])


@pytest.mark.parametrize(
    ("entry", "network", "sentence"),
    [
        (config(dims=("2",), reshape={"shape": ["1", "2"]}), ["N", 2], "has the shape [-1, 1, 2] in the config and"),
        (config(0, dims=("2",)), [], "has the shape [2] in the config and [] in the network."),
        (config(dims=("1",)), [], "has the shape [-1, 1] in the config and [] in the network."),
    ],
)
def test_a_wrong_shape_is_refused(entry: dict[str, Any], network: list[Any], sentence: str) -> None:
    """With batches a single number would be one item's, and the others would be lost."""
    for kind, check in (("input", check_inputs), ("output", check_outputs)):
        with pytest.raises(ConfigError, match=re.escape(f"The {kind} 'X' {sentence}")):
            check(entry, [tensor(network)])


def test_a_weight_may_be_an_optional_input_without_batches() -> None:
    """The network has its value when a request gives none."""
    weight = tensor([2], "W")
    entry = config(0, dims=("2",))
    entry["input"] = [*entry["input"], {"name": "W", "data_type": "TYPE_FP32", "dims": ["2"], "optional": True}]
    check_inputs(entry, [tensor([2])], [weight])
    entry["input"][1]["optional"] = False
    with pytest.raises(
        ConfigError, match=r"^The input 'W' is a weight of the network: make it optional, or remove it.$"
    ):
        check_inputs(entry, [tensor([2])], [weight])


@pytest.mark.parametrize(
    ("entry", "network", "sentence"),
    [
        (
            config(optional=True),
            ["N", 2],
            "The input 'X' cannot be optional: a model with batches has no optional inputs.",
        ),
        (config(0, optional=True), [2], "The input 'X' cannot be optional: the network needs it."),
        (
            config(allow_ragged_batch=True),
            ["N", 2],
            "The ragged input 'X' must have the shape [-1] in the network, which has ['N', 2].",
        ),
        (
            config(allow_ragged_batch=True),
            ["N"],
            "The embedded server joins no ragged batches: remove allow_ragged_batch from the input 'X'.",
        ),
    ],
)
def test_optional_and_ragged_inputs_are_refused(entry: dict[str, Any], network: list[Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        check_inputs(entry, [tensor(network)])


def test_a_network_with_other_outputs_than_tensors_is_refused() -> None:
    """NVIDIA's backend reads all of them, those too that the config omits."""
    outputs = [tensor(["N", 2]), tensor([], "maps", "seq(map(string,tensor(float)))")]
    sentence = r"^The network's output 'maps' is seq\(map\(string,tensor\(float\)\)\), which Triton cannot pass on.$"
    with pytest.raises(ConfigError, match=sentence):
        check_outputs(config(), outputs)


def test_strings_are_tensors_too() -> None:
    """ONNX Runtime calls them tensor(string), Triton TYPE_STRING."""
    check_inputs(config(data_type="TYPE_STRING"), [tensor(["N", 2], kind="tensor(string)")])
