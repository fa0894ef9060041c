"""ONNX files: their inputs and outputs, the checks that they can be served, and sessions that run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from google.protobuf.message import EncodeError
from onnx import TensorProto

from modelctl.errors import CommandError
from modelctl.graphs import external, files, operators

Arrays = dict[str, npt.NDArray[Any]]
DATA_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT8: "INT8",
    TensorProto.INT64: "INT64",
    TensorProto.INT32: "INT32",
    TensorProto.BOOL: "BOOL",
}
NUMPY: dict[str, npt.DTypeLike] = {
    "FP32": np.float32,
    "FP16": np.float16,
    "UINT8": np.uint8,
    "INT8": np.int8,
    "INT64": np.int64,
    "INT32": np.int32,
    "BOOL": np.bool_,
}
# Operators that ONNX Runtime includes: the standard, machine learning, and its own.
KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
BATCH = "batch"
MAX_BYTES = (2 << 30) - (64 << 20)
"""Weights that one ONNX file holds: protobuf ends at 2 GiB, and the graph needs some of it."""


@dataclass(frozen=True)
class Port:
    """One input or output of a graph; sizes are numbers, or None where they are free."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


def load(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, with the weights that lie beside it.

    Raises:
        CommandError: when the file is not ONNX, or cannot be served.

    """
    files.require_whole(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
        _require_text(model)
        external.load(model, path)
    except CommandError:
        raise
    except Exception as error:
        raise CommandError(f"{path} cannot be read as ONNX: {one_line(error)}") from error
    if not model.graph.node or not model.graph.input or not model.graph.output:
        raise CommandError(f"{path} holds no network: it has {len(model.graph.node)} operators.")
    _require_tensors(model)
    _require_known_operators(model)
    return model


def _require_text(model: onnx.ModelProto) -> None:
    """Raise ValueError when a name is not UTF-8: protobuf reads it as bytes, and fails only when it is set again."""
    graph = model.graph
    names = [name for node in graph.node for name in (node.name, node.op_type, node.domain, *node.input, *node.output)]
    names += [entry.name for entries in (graph.initializer, graph.input, graph.output) for entry in entries]
    names += [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a name is not UTF-8")


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write an ONNX file: its weights inside, or beside it (`external.data_of`) when they are over `MAX_BYTES`.

    Raises:
        CommandError: when it cannot be written.

    """
    external.data_of(path).unlink(missing_ok=True)
    try:
        if external.size(model) > MAX_BYTES:
            external.store(model, path)
        else:
            onnx.save(model, str(path))
    except (ValueError, EncodeError) as error:
        raise CommandError(f"The network cannot be stored as ONNX: {one_line(error)}") from error


def _require_tensors(model: onnx.ModelProto) -> None:
    for kind, ports in (("input", model.graph.input), ("output", model.graph.output)):
        for port in ports:
            what = port.type.WhichOneof("value")
            if what != "tensor_type":
                hint = " (scikit-learn's exporter: zipmap=False)" if what in ("sequence_type", "map_type") else ""
                text = f"is a {what.removesuffix('_type')}" if what else "has no type"
                raise CommandError(f"The {kind} '{port.name}' {text}, which Triton cannot serve: export tensors{hint}.")
            element = port.type.tensor_type.elem_type
            if element == TensorProto.STRING:
                way = operators.TEXT_INPUT if kind == "input" else operators.TEXT_OUTPUT
                raise CommandError(f"The {kind} '{port.name}' is of type STRING, which is not served: {way}")
            if element not in DATA_TYPES:
                known = element in TensorProto.DataType.values()
                name = TensorProto.DataType.Name(element) if known else f"number {element}"
                raise CommandError(f"The {kind} '{port.name}' is of type {name}; supported: {', '.join(NUMPY)}.")


def _require_known_operators(model: onnx.ModelProto) -> None:
    own = {function.domain for function in model.functions}
    for node in model.graph.node:
        if node.domain not in KNOWN_DOMAINS and node.domain not in own:
            raise CommandError(
                f"The network uses the custom operator {node.domain}.{node.op_type}, which ONNX Runtime lacks: "
                f"{operators.way_out(node.domain)}"
            )


def ports(model: onnx.ModelProto) -> tuple[list[Port], list[Port]]:
    """Return a graph's inputs (without those that are weights) and outputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [_port(entry) for entry in model.graph.input if entry.name not in weights]
    return inputs, [_port(entry) for entry in model.graph.output]


def _port(entry: onnx.ValueInfoProto) -> Port:
    tensor = entry.type.tensor_type
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    return Port(entry.name, DATA_TYPES[tensor.elem_type], shape)


def session(model: onnx.ModelProto | Path) -> Any:
    """Open a network on the CPU.

    Raises:
        CommandError: when ONNX Runtime refuses it.

    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        given = str(model) if isinstance(model, Path) else model.SerializeToString()
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CommandError(f"ONNX Runtime refuses the network: {one_line(error)}") from error


def run(session: Any, inputs: Arrays) -> Arrays:
    """Run a network; outputs by name.

    Raises:
        CommandError: when it fails.

    """
    try:
        made = session.run(None, inputs)
    except Exception as error:
        raise CommandError(f"The network cannot be run: {one_line(error)}") from error
    return {output.name: array for output, array in zip(session.get_outputs(), made, strict=True)}


def one_line(error: Exception) -> str:
    """Return the start of an error's message, without line breaks."""
    return " ".join(str(error).split())[:300]
