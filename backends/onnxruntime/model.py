"""Replaces NVIDIA's ONNX Runtime backend, which the embedded server lacks: same folder layout, same config.

    requests --feed--> arrays --join equal shapes--> one run --split--> responses

The model is `<version>/<default_model_filename or model.onnx>`. The config has the names of NVIDIA's backend: the
parameters `intra_op_thread_count`, `inter_op_thread_count` (0: ONNX Runtime's choice), `execution_mode` (0
sequential, 1 parallel), `enable_mem_arena` and `enable_mem_pattern` (true, false), `optimization.graph.level` (-1
basic, 1 extended, 2 none; all by default), and the instance's kind. This folder must never hold an `__init__.py`: it
would hide the real package of that name.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import triton_python_backend_utils as pb_utils

Arrays = dict[str, npt.NDArray[Any]]

DATA_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(double)": "TYPE_FP64",
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    **{f"tensor({sign}int{bits})": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
GRAPH_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}

logger = logging.getLogger(__name__)


class TritonPythonModel:
    """One instance of a network, with its own session."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network; raises TritonModelException when the config does not fit it."""
        config = json.loads(args["model_config"])
        self._batches = config["max_batch_size"] > 0
        self._inputs = [entry["name"] for entry in config["input"]]
        self._outputs = [entry["name"] for entry in config["output"]]
        name = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / name
        if not path.is_file():
            raise pb_utils.TritonModelException(f"The version folder {args['model_version']} has no file '{name}'.")
        self._session = onnxruntime.InferenceSession(path, options(config), providers=providers(args))
        check("input", config["input"], self._session.get_inputs(), self._batches)
        check("output", config["output"], self._session.get_outputs(), self._batches)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests; requests of equal shapes run as one array."""
        responses: list[Any] = [None] * len(requests)
        for group in self._groups(requests):
            members = [requests[index] for index, _ in group]
            made = self._run_or_split(members, [feed for _, feed in group])
            for (index, _), response in zip(group, made, strict=True):
                responses[index] = response
        return responses

    def _groups(self, requests: Sequence[Any]) -> list[list[tuple[int, Arrays]]]:
        groups: dict[Any, list[tuple[int, Arrays]]] = {}
        for index, request in enumerate(requests):
            feed = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            key = tuple(array.shape[1:] for array in feed.values()) if self._batches else index
            groups.setdefault(key, []).append((index, feed))
        return list(groups.values())

    def _run_or_split(self, requests: Sequence[Any], feeds: Sequence[Arrays]) -> list[Any]:
        """Run requests together; if that fails, run each alone, so that only the request at fault fails."""
        try:
            return self._run(requests, feeds)
        except Exception:  # one request's content may make the network fail in any way
            if len(requests) == 1:
                logger.exception("the network failed on one request")
                return [_failure()]
        return [self._run_or_split([request], [feed])[0] for request, feed in zip(requests, feeds, strict=True)]

    def _run(self, requests: Sequence[Any], feeds: Sequence[Arrays]) -> list[Any]:
        joined = feeds[0] if len(feeds) == 1 else {n: np.concatenate([feed[n] for feed in feeds]) for n in self._inputs}
        asked = [set(request.requested_output_names()) for request in requests]
        names = [name for name in self._outputs if any(name in one for one in asked)]
        made = dict(zip(names, self._session.run(names, joined), strict=True))
        parts = _split(made, [len(feed[self._inputs[0]]) for feed in feeds]) if self._batches else [made]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in part.items() if name in one])
            for one, part in zip(asked, parts, strict=True)
        ]


def _split(arrays: Arrays, sizes: Sequence[int]) -> list[Arrays]:
    """Return each request's part of the outputs; raises ValueError when an output does not have one row per item."""
    bad = [name for name, array in arrays.items() if array.shape[:1] != (sum(sizes),)]
    if bad:
        raise ValueError(f"output '{bad[0]}' has shape {arrays[bad[0]].shape} for a batch of {sum(sizes)}")
    ends = np.cumsum(sizes).tolist()
    return [
        {name: array[end - size : end] for name, array in arrays.items()} for size, end in zip(sizes, ends, strict=True)
    ]


def _failure() -> Any:
    message = "backend_error@network: the network failed on this input"
    # All steps refuse with this code; the gateway reads the name of a step only from errors with it.
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))


def options(config: dict[str, Any]) -> Any:
    """Return ONNX Runtime's session options for a model's config."""
    parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
    made.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
    if int(parameters.get("execution_mode", 0)) == 1:
        made.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    made.graph_optimization_level = GRAPH_LEVELS.get(level, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    made.enable_mem_pattern = flag(parameters, "enable_mem_pattern")
    made.enable_cpu_mem_arena = flag(parameters, "enable_mem_arena")
    # Threads that spin while they wait would take the cores from the other steps, each of which is a process.
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    made.add_session_config_entry("session.inter_op.allow_spinning", "0")
    made.log_severity_level = 3  # errors only: at load, ONNX Runtime warns on every machine without a GPU
    return made


def flag(parameters: dict[str, str], name: str) -> bool:
    """Return a boolean parameter, true when absent; raises TritonModelException when it is neither true nor false."""
    text = parameters.get(name, "true").lower()
    if text not in ("true", "1", "false", "0"):
        raise pb_utils.TritonModelException(f"The parameter '{name}' must be true or false, not '{text}'.")
    return text in ("true", "1")


def providers(args: dict[str, str]) -> list[Any]:
    """Return the execution providers for this instance's device, preferred first."""
    cpu = "CPUExecutionProvider"
    if args["model_instance_kind"] != "GPU":
        return [cpu]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        logger.warning(
            "%s is configured for a GPU, but this ONNX Runtime has no CUDA: it runs on the CPU", args["model_name"]
        )
        return [cpu]
    return [("CUDAExecutionProvider", {"device_id": int(args["model_instance_device_id"])}), cpu]


def check(kind: str, entries: Sequence[dict[str, Any]], tensors: Sequence[Any], batches: bool) -> None:
    """Raise TritonModelException when a config's inputs or outputs do not fit the network's, as NVIDIA's backend does.

    A batch needs a dynamic first axis, and sizes must be equal. Only an input's axis may be dynamic in the network and
    a number in the config (CompareDimsSupported in onnxruntime_utils.cc, triton-inference-server/onnxruntime_backend).

    Args:
        kind: `input` or `output`.
        entries: the config's inputs or outputs.
        tensors: the network's inputs or outputs. A config may omit outputs, but not inputs.
        batches: whether the config's dims omit the batch.

    """
    found = {tensor.name: tensor for tensor in tensors}
    missing = found.keys() - {entry["name"] for entry in entries}
    if kind == "input" and missing:
        raise pb_utils.TritonModelException(f"The network needs the input '{min(missing)}', which the config lacks.")
    for entry in entries:
        name = entry["name"]
        if name not in found:
            has = ", ".join(sorted(found))
            raise pb_utils.TritonModelException(f"The network has no {kind} '{name}'; it has {has}.")
        actual = DATA_TYPES.get(found[name].type, found[name].type)
        if actual != entry["data_type"]:
            raise pb_utils.TritonModelException(
                f"The {kind} '{name}' is {entry['data_type']} in the config and {actual} in the network."
            )
        shape = found[name].shape
        dims = [*([-1] if batches else []), *(int(size) for size in entry["dims"])]
        is_input = kind == "input"
        if len(dims) != len(shape) or not all(_fits(a, b, is_input) for a, b in zip(dims, shape, strict=True)):
            raise pb_utils.TritonModelException(
                f"The {kind} '{name}' has the shape {dims} in the config and {shape} in the network."
            )


def _fits(size: int, actual: int | str | None, is_input: bool) -> bool:
    """Tell whether an axis has a fitting size; in the network, dynamic sizes are names, None or negative numbers."""
    if not isinstance(actual, int) or actual < 0:
        return is_input or size == -1
    return size == actual
