"""Replaces NVIDIA's ONNX Runtime backend, which the embedded server lacks: same folder layout, same config.

    requests --feed--> arrays --join equal shapes--> one run --split--> responses

The model is `<version>/<default_model_filename or model.onnx>`, or the model.onnx in a folder of that name, beside its
external data. `stages.onnx_options` reads the config's options, `stages.onnx_signature` holds its tensors against the
network's; both refuse what NVIDIA's backend refuses. This folder must never hold an `__init__.py`: it would hide the
real package of that name.

Two things differ, both for the better: NVIDIA's backend fails a whole batch when one item breaks the network, and it
cuts an output with more rows than the batch.
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

from stages.config import ConfigError
from stages.onnx_options import RuntimeOptions
from stages.onnx_signature import check_inputs, check_outputs

Arrays = dict[str, npt.NDArray[Any]]

GRAPH_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}

logger = logging.getLogger(__name__)


class RowsError(ValueError):
    """An output does not have one row for each item of the batch."""


class TritonPythonModel:
    """One instance of a network, with its own session."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network; raises TritonModelException when the config does not fit it."""
        config = json.loads(args["model_config"])
        self._batches = config["max_batch_size"] > 0
        self._inputs = [entry["name"] for entry in config["input"]]
        self._outputs = [entry["name"] for entry in config["output"]]
        try:
            runtime = RuntimeOptions.of(config)
            session = onnxruntime.InferenceSession(
                network(args, config), options(runtime), providers=providers(args, runtime)
            )
            check_inputs(config, session.get_inputs(), session.get_overridable_initializers())
            check_outputs(config, session.get_outputs())
        except ConfigError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._session = session
        # A single number has no axis in the network; a tensor of Triton has one at least.
        self._scalars = {tensor.name for tensor in session.get_inputs() if not tensor.shape}
        self._dims = {entry["name"]: [int(size) for size in entry["dims"]] for entry in config["output"]}

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
            feed = self._feed(request)
            key = tuple(array.shape[1:] for array in feed.values()) if self._batches else index
            groups.setdefault(key, []).append((index, feed))
        return list(groups.values())

    def _feed(self, request: Any) -> Arrays:
        """Return a request's arrays; optional inputs may be absent."""
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in self._inputs}
        feed = {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}
        return {name: array.reshape(()) if name in self._scalars else array for name, array in feed.items()}

    def _run_or_split(self, requests: Sequence[Any], feeds: Sequence[Arrays]) -> list[Any]:
        """Run requests together; if that fails, run each alone, so that only the request at fault fails."""
        try:
            return self._run(requests, feeds)
        except Exception as error:  # one request's content may make the network fail in any way
            if len(requests) == 1:
                logger.exception("the network failed on one request")
                # Other errors may quote the input or a path; the log has them.
                return [_failure(str(error) if isinstance(error, RowsError) else "the network failed on this input")]
        return [self._run_or_split([request], [feed])[0] for request, feed in zip(requests, feeds, strict=True)]

    def _run(self, requests: Sequence[Any], feeds: Sequence[Arrays]) -> list[Any]:
        joined = feeds[0] if len(feeds) == 1 else {n: np.concatenate([feed[n] for feed in feeds]) for n in feeds[0]}
        joined = {name: _decoded(array) for name, array in joined.items()}
        asked = [set(request.requested_output_names()) for request in requests]
        names = [name for name in self._outputs if any(name in one for one in asked)]
        made = {
            name: self._answered(name, array)
            for name, array in zip(names, self._session.run(names, joined), strict=True)
        }
        parts = _split(made, [len(feed[self._inputs[0]]) for feed in feeds]) if self._batches else [made]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in part.items() if name in one])
            for one, part in zip(asked, parts, strict=True)
        ]

    def _answered(self, name: str, array: Any) -> npt.NDArray[Any]:
        """Return an output as Triton takes it: strings as bytes, a single number with the config's dims."""
        made = np.asarray(array)
        if made.dtype == np.object_:
            made = np.array([text.encode() for text in made.ravel()], np.object_).reshape(made.shape)
        return made if made.shape or self._batches else made.reshape(self._dims[name])


def _decoded(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return strings as ONNX Runtime takes them; Triton hands them over as bytes."""
    if array.dtype != np.object_:
        return array
    return np.array([text.decode() for text in array.ravel()], np.object_).reshape(array.shape)


def _split(arrays: Arrays, sizes: Sequence[int]) -> list[Arrays]:
    """Return each request's part of the outputs; raises RowsError when an output does not have one row per item."""
    bad = [name for name, array in arrays.items() if array.shape[:1] != (sum(sizes),)]
    if bad:
        shape = list(arrays[bad[0]].shape)
        raise RowsError(f"the output '{bad[0]}' has the shape {shape} for a batch of {sum(sizes)}")
    ends = np.cumsum(sizes).tolist()
    return [
        {name: array[end - size : end] for name, array in arrays.items()} for size, end in zip(sizes, ends, strict=True)
    ]


def _failure(sentence: str) -> Any:
    # All steps refuse with this code; the gateway reads the name of a step only from errors with it.
    message = f"backend_error@network: {sentence}"
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))


def network(args: dict[str, str], config: dict[str, Any]) -> Path:
    """Return the network's file; raises ConfigError when there is none."""
    name = config.get("default_model_filename") or "model.onnx"
    path = Path(args["model_repository"]) / args["model_version"] / name
    if path.is_dir():
        path, name = path / "model.onnx", f"{name}/model.onnx"
    if not path.is_file():
        raise ConfigError(f"The version folder {args['model_version']} has no file '{name}'.")
    return path


def options(runtime: RuntimeOptions) -> Any:
    """Return ONNX Runtime's session options; raises ConfigError when a library of operators cannot be loaded."""
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads, made.inter_op_num_threads = runtime.intra_op_threads, runtime.inter_op_threads
    if runtime.parallel:
        made.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    made.graph_optimization_level = GRAPH_LEVELS.get(
        runtime.graph_level, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    )
    made.enable_mem_pattern, made.enable_cpu_mem_arena = runtime.memory_pattern, runtime.memory_arena
    # Threads that spin while they wait would take the cores from the other steps, each of which is a process.
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    made.add_session_config_entry("session.inter_op.allow_spinning", "0")
    made.log_severity_level = 3  # errors only: at load, ONNX Runtime warns on every machine without a GPU
    for library in runtime.libraries:
        try:
            made.register_custom_ops_library(library)
        except Exception as error:  # onnxruntime's own classes have no common base
            raise ConfigError(f"The op_library_filename '{library}' cannot be loaded: {error}") from error
    return made


def providers(args: dict[str, str], runtime: RuntimeOptions) -> list[Any]:
    """Return the execution providers for this instance's device, preferred first."""
    cpu = "CPUExecutionProvider"
    if runtime.accelerators:
        logger.warning("%s is configured for OpenVINO, which this ONNX Runtime lacks", args["model_name"])
    if args["model_instance_kind"] != "GPU":
        return [cpu]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        logger.warning(
            "%s is configured for a GPU, but this ONNX Runtime has no CUDA: it runs on the CPU", args["model_name"]
        )
        return [cpu]
    return [("CUDAExecutionProvider", {"device_id": int(args["model_instance_device_id"])}), cpu]
