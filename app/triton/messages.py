"""Requests as Triton's messages, and its answers as arrays."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from app.tasks.base import Parameter, Tensors

DATA_TYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
}


class Answer:
    """The tensors of one inference, by name, and the version of the model that gave them."""

    def __init__(self, version: str, tensors: Tensors) -> None:
        self.version = version
        self.tensors = tensors


def inference_request(
    model: str,
    version: str | None,
    item: tuple[str, bytes],
    outputs: Iterable[str],
    parameters: Mapping[str, Parameter],
    request_id: str,
) -> Any:
    """Return the message for one item, the named STRING tensor of shape [1, 1], that asks for the named outputs."""
    name, value = item
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version or "", id=request_id)
    request.inputs.add(name=name, datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(struct.pack("<I", len(value)) + value)
    for output in outputs:
        request.outputs.add(name=output)
    for option, given in parameters.items():
        setattr(request.parameters[option], _parameter_field(given), given)
    return request


def _parameter_field(value: Parameter) -> str:
    if isinstance(value, bool):
        return "bool_param"
    if isinstance(value, int):
        return "int64_param"
    return "double_param" if isinstance(value, float) else "string_param"


def read_outputs(response: Any) -> dict[str, npt.NDArray[Any]]:
    """Return the raw outputs of a response as arrays; strings stay bytes, in arrays of objects."""
    return {
        output.name: _array(output.datatype, tuple(output.shape), raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def _array(data_type: str, shape: tuple[int, ...], raw: bytes) -> npt.NDArray[Any]:
    if data_type != "BYTES":
        return np.frombuffer(raw, DATA_TYPES[data_type]).reshape(shape)
    values, position = [], 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        values.append(raw[position + 4 : position + 4 + length])
        position += 4 + length
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)
