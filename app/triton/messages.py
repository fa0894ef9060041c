"""Questions as Triton's messages, and its answers as arrays."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from app.errors import BackendError
from app.tasks.base import Parameter, Task
from app.triton.question import Answer, Question

DATA_TYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
}


def request_message(question: Question, timeout_s: float) -> Any:
    """Return a question as Triton's message: a STRING tensor of shape [n, 1], and the outputs of the task.

    The parameter `timeout`, in microseconds, tells the steps when nobody waits any more.
    """
    task = question.model.task
    message = service_pb2.ModelInferRequest(
        model_name=question.model.name, model_version=question.version or "", id=question.request_id
    )
    message.inputs.add(name=task.input, datatype="BYTES", shape=[len(question.items), 1])
    message.raw_input_contents.append(b"".join(struct.pack("<I", len(item)) + item for item in question.items))
    for output in task.outputs:
        message.outputs.add(name=output)
    for option, given in question.parameters.items():
        setattr(message.parameters[option], _parameter_field(given), given)
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
    """Return the answer to each of `count` items of one call, without the padding of shorter rows.

    Raises:
        BackendError: when there is not one row for each item.

    """
    if answer.tensors.keys() != task.outputs.keys() or any(len(array) != count for array in answer.tensors.values()):
        raise BackendError("The model's answer has unexpected tensors or an unexpected number of items.")
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
