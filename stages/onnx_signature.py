"""Whether a config's inputs and outputs fit an ONNX network, by the rules of NVIDIA's ONNX Runtime backend.

A batch needs a free first axis, and sizes must be equal. Only an input's axis may be free in the network and a number
in the config. A `reshape` stands for the dims: Triton itself reshapes between the caller and the network. Source:
`ValidateInputs` and `ValidateOutputs` in onnxruntime.cc, `CompareDimsSupported` in onnxruntime_utils.cc
(triton-inference-server/onnxruntime_backend).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from stages.config import ConfigError

Entry = Mapping[str, Any]

DATA_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(double)": "TYPE_FP64",
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(string)": "TYPE_STRING",
    **{f"tensor({sign}int{bits})": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class Tensor(Protocol):
    """An input or output as ONNX Runtime describes it; free sizes are names, None or negative numbers."""

    name: str
    type: str
    shape: Sequence[int | str | None]


def check_inputs(config: Mapping[str, Any], tensors: Sequence[Tensor], initializers: Sequence[Tensor] = ()) -> None:
    """Check the config's inputs.

    Args:
        config: the model's config.
        tensors: the network's inputs. The config must name them all.
        initializers: weights that a request may replace; an input of the config may be one if it is `optional`.

    Raises:
        ConfigError: when they do not fit the network.

    """
    entries, batches = config["input"], config["max_batch_size"] > 0
    missing = {tensor.name for tensor in tensors} - {entry["name"] for entry in entries}
    if missing:
        raise ConfigError(f"The network needs the input '{min(missing)}', which the config lacks.")
    required = {tensor.name for tensor in tensors}
    optional = {tensor.name for tensor in initializers}
    found = {tensor.name: tensor for tensor in [*tensors, *initializers]}
    for entry in entries:
        name = entry["name"]
        if entry.get("optional") and (batches or name in required):
            reason = "a model with batches has no optional inputs" if batches else "the network needs it"
            raise ConfigError(f"The input '{name}' cannot be optional: {reason}.")
        if name in optional and not entry.get("optional"):
            raise ConfigError(f"The input '{name}' is a weight of the network: make it optional, or remove it.")
        tensor = _find("input", entry, found)
        if entry.get("allow_ragged_batch"):
            raise ConfigError(_ragged(name, list(tensor.shape)))
        _check_shape("input", entry, tensor, batches)


def check_outputs(config: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
    """Check the config's outputs, which may be some of the network's; raises ConfigError when they do not fit."""
    for tensor in tensors:
        if not tensor.type.startswith("tensor("):
            raise ConfigError(f"The network's output '{tensor.name}' is {tensor.type}, which Triton cannot pass on.")
    found = {tensor.name: tensor for tensor in tensors}
    for entry in config["output"]:
        _check_shape("output", entry, _find("output", entry, found), config["max_batch_size"] > 0)


def _find(kind: str, entry: Entry, found: Mapping[str, Tensor]) -> Tensor:
    name = entry["name"]
    if name not in found:
        raise ConfigError(f"The network has no {kind} '{name}'; it has {', '.join(sorted(found))}.")
    actual = DATA_TYPES.get(found[name].type, found[name].type)
    if actual != entry["data_type"]:
        raise ConfigError(f"The {kind} '{name}' is {entry['data_type']} in the config and {actual} in the network.")
    return found[name]


def _ragged(name: str, shape: list[int | str | None]) -> str:
    if len(shape) == 1 and not _is_fixed(shape[0]):
        return f"The embedded server joins no ragged batches: remove allow_ragged_batch from the input '{name}'."
    return f"The ragged input '{name}' must have the shape [-1] in the network, which has {shape}."


def _check_shape(kind: str, entry: Entry, tensor: Tensor, batches: bool) -> None:
    shape = list(tensor.shape)
    written = entry["reshape"].get("shape", []) if "reshape" in entry else entry["dims"]
    dims = [*([-1] if batches else []), *(int(size) for size in written)]
    if not shape and not batches and all(size == 1 for size in dims):
        return  # a single number
    is_input = kind == "input"
    if len(dims) != len(shape) or not all(_fits(a, b, is_input) for a, b in zip(dims, shape, strict=True)):
        raise ConfigError(
            f"The {kind} '{entry['name']}' has the shape {dims} in the config and {shape} in the network."
        )


def _fits(size: int, actual: int | str | None, is_input: bool) -> bool:
    return size == actual if _is_fixed(actual) else is_input or size == -1


def _is_fixed(size: int | str | None) -> bool:
    return isinstance(size, int) and size >= 0
