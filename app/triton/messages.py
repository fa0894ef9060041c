"""Requests as Triton's messages, and its answers as arrays."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from app.errors import BackendError
from app.tasks.base import Parameter, Task, Tensors

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


@dataclass(frozen=True)
class Question:
    """One call: items for a model, as the named STRING tensor of shape [n, 1], and the outputs that are asked for.

    `version`: None is the newest.
    """

    model: str
    version: str | None
    input: str
    items: Sequence[bytes]
    outputs: Iterable[str]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    request_id: str = ""
    traceparent: str = ""

    def message(self, timeout_s: float = 0) -> Any:
        """Return it as Triton's message; steps read from the parameter `timeout` when nobody waits any more."""
        message = service_pb2.ModelInferRequest(
            model_name=self.model, model_version=self.version or "", id=self.request_id
        )
        message.inputs.add(name=self.input, datatype="BYTES", shape=[len(self.items), 1])
        message.raw_input_contents.append(b"".join(struct.pack("<I", len(item)) + item for item in self.items))
        for output in self.outputs:
            message.outputs.add(name=output)
        for option, given in self.parameters.items():
            setattr(message.parameters[option], _parameter_field(given), given)
        if timeout_s:
            message.parameters["timeout"].int64_param = int(timeout_s * 1_000_000)
        return message


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


def rows(answer: Answer, count: int, task: Task) -> list[Answer]:
    """Return the answers to each of `count` items of one call, without what pads the shorter ones (API.md, 2).

    Raises:
        BackendError: when there is not one row for each item.

    """
    if answer.tensors.keys() != task.outputs.keys() or any(len(array) != count for array in answer.tensors.values()):
        raise BackendError("The model's answer has other tensors, or another number of items, than were asked for.")
    lengths = [_length(labels) for labels in answer.tensors["label"]]
    return [
        Answer(
            answer.version,
            {
                name: array[row : row + 1, :length] if task.outputs[name].dims[0] < 0 else array[row : row + 1]
                for name, array in answer.tensors.items()
            },
        )
        for row, length in enumerate(lengths)
    ]


def _length(labels: npt.NDArray[Any]) -> int:
    length = len(labels)
    while length and not labels[length - 1]:
        length -= 1
    return length


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
