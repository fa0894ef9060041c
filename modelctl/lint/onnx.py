"""The inputs and outputs of an ONNX file, read without its weights.

A model of any size takes milliseconds, because the reader skips every part of the protobuf that it does not need. The
`onnx` package would copy every weight, and the images that run Triton lack it.
https://protobuf.dev/programming-guides/encoding/, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

# TensorProto.DataType -> Triton's data types.
DATA_TYPES = {
    **{1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "STRING", 9: "BOOL"},
    **{10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16"},
}
# The numbers of the fields that are read, by message.
MODEL_IR, MODEL_GRAPH, MODEL_OPSET = 1, 7, 8
OPSET_DOMAIN, OPSET_VERSION = 1, 2
GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 5, 11, 12
TENSOR_NAME, TENSOR_EXTERNAL = 8, 13
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR, ELEMENT, SHAPE, DIMENSION, SIZE = 1, 1, 2, 1, 1


class OnnxError(Exception):
    """The file is not an ONNX model."""


class Tensor(NamedTuple):
    """One input or output. `shape` is None when the model does not fix the rank; -1 is a free size."""

    data_type: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Onnx:
    """The tensors that a model's config must match, and what its reader must know.

    Attributes:
        external: the files beside the model that hold weights.
        ir: the version of the file's format.
        opset: the version of the standard operators; 0 when it names none.

    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    external: frozenset[str]
    ir: int = 0
    opset: int = 0


@lru_cache(maxsize=1024)
def read(path: Path) -> Onnx:
    """Read a model; raises OnnxError when the file is not one."""
    try:
        with path.open("rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        parts = list(_fields(whole))
        graph = _graph(_bytes([part for number, part in parts if number == MODEL_GRAPH][-1]))
        ir = next((part for number, part in parts if number == MODEL_IR and isinstance(part, int)), 0)
        opsets = [_opset(_bytes(part)) for number, part in parts if number == MODEL_OPSET]
        return replace(graph, ir=ir, opset=max(opsets, default=0))
    except (ValueError, IndexError, UnicodeDecodeError) as error:  # an empty file cannot be mapped either
        raise OnnxError(str(error)) from error


def _opset(opset: memoryview) -> int:
    """Return the version of an OperatorSetIdProto; 0 for operators beyond the standard ones."""
    parts = dict(_fields(opset))
    domain = bytes(_bytes(parts[OPSET_DOMAIN])) if OPSET_DOMAIN in parts else b""
    version = parts.get(OPSET_VERSION, 0)
    return version if domain in (b"", b"ai.onnx") and isinstance(version, int) else 0


def _graph(graph: memoryview) -> Onnx:
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    initializers: set[str] = set()
    external: set[str] = set()
    for number, part in _fields(graph):
        if number == GRAPH_INITIALIZER:
            _initializer(_bytes(part), initializers, external)
        elif number in (GRAPH_INPUT, GRAPH_OUTPUT):
            name, tensor = _value(_bytes(part))
            (inputs if number == GRAPH_INPUT else outputs)[name] = tensor
    # Before IR version 4 every weight was an input too.
    wanted = {name: tensor for name, tensor in inputs.items() if name not in initializers}
    return Onnx(wanted, outputs, frozenset(external))


def _initializer(tensor: memoryview, names: set[str], external: set[str]) -> None:
    for number, part in _fields(tensor):
        if number == TENSOR_NAME:
            names.add(str(_bytes(part), "utf-8"))
        elif number == TENSOR_EXTERNAL:
            entry = dict(_fields(_bytes(part)))  # StringStringEntryProto: 1 is the key, 2 the value
            if bytes(_bytes(entry[1])) == b"location":
                external.add(str(_bytes(entry[2]), "utf-8"))


def _value(value: memoryview) -> tuple[str, Tensor]:
    """Read a ValueInfoProto; a sequence or a map has no data type and no shape."""
    parts = dict(_fields(value))
    name = str(_bytes(parts[VALUE_NAME]), "utf-8")
    kind = dict(_fields(_bytes(parts[VALUE_TYPE]))) if VALUE_TYPE in parts else {}
    if TYPE_TENSOR not in kind:
        return name, Tensor("", None)
    tensor = dict(_fields(_bytes(kind[TYPE_TENSOR])))
    element = tensor.get(ELEMENT, 0)
    shape = None
    if SHAPE in tensor:
        shape = tuple(_size(_bytes(part)) for number, part in _fields(_bytes(tensor[SHAPE])) if number == DIMENSION)
    return name, Tensor(DATA_TYPES.get(element if isinstance(element, int) else 0, ""), shape)


def _size(dimension: memoryview) -> int:
    """Return a Dimension's size; -1 when it is a name, or left open, or written as a negative number."""
    size = dict(_fields(dimension)).get(SIZE, -1)
    return size if isinstance(size, int) and 0 < size < 1 << 63 else -1


def _bytes(part: int | memoryview) -> memoryview:
    if isinstance(part, int):
        raise ValueError("a number stands where a message should")
    return part


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield each field's number and content; raises ValueError or IndexError when the bytes are not a protobuf."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire not in (1, 2, 5) or not number:
            raise ValueError(f"wire type {wire}")
        length, at = _varint(message, at) if wire == 2 else (8 if wire == 1 else 4, at)
        if at + length > len(message):
            raise ValueError("the file ends too early")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")
