"""Weights that lie in files beside an ONNX file, as those of every network over 2 GB do.

https://github.com/onnx/onnx/blob/main/docs/ExternalData.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from modelctl.errors import CommandError

SMALLEST = 1024
"""Tensors of fewer bytes stay in the ONNX file: shape inference reads them."""


def data_of(path: Path) -> Path:
    """Return where `store` puts the weights of a network."""
    return path.with_name(f"{path.name}.data")


def size_beside(path: Path) -> int:
    """Return the bytes that `store` has put beside a network."""
    data = data_of(path)
    return data.stat().st_size if data.is_file() else 0


def load(model: onnx.ModelProto, path: Path) -> None:
    """Read the weights beside the file at `path` into `model`.

    Raises:
        CommandError: when a file is missing, too short, or outside the network's folder.

    """
    outside = [tensor for tensor in tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    for tensor in outside:
        _require(tensor, path)
    if outside:
        load_external_data_for_model(model, str(path.parent))


def _require(tensor: TensorProto, path: Path) -> None:
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    folder = path.parent.resolve()
    file = (folder / location).resolve()
    if not location or not file.is_relative_to(folder) or file == folder:
        raise CommandError(
            f"{path} asks for weights outside its folder, in '{location}', which is refused: "
            "keep its files together, without links, or export it as one file."
        )
    if not file.is_file():
        raise CommandError(
            f"The weights of {path} are in '{location}', which is missing: put that file back into {folder}, under "
            "that name (a renamed ONNX file still asks for the old name), or export it as one file."
        )
    start, length = (int(said.get(key) or 0) for key in ("offset", "length"))
    if start < 0 or length < 0 or start + length > file.stat().st_size:
        raise CommandError(
            f"{file} is cut off: {path.name} reads bytes {start} to {start + length} of it, and it has "
            f"{file.stat().st_size}; fetch or export it again."
        )


def store(model: onnx.ModelProto, path: Path) -> None:
    """Write a network with its weights beside it, in one file."""
    for tensor in tensors(model):
        if not tensor.raw_data and _size(tensor) >= SMALLEST:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    location = data_of(path).name
    onnx.save(model, str(path), save_as_external_data=True, location=location, size_threshold=SMALLEST)
    load_external_data_for_model(model, str(path.parent))  # writing it took the weights out of `model`


def size(model: onnx.ModelProto) -> int:
    """Return the bytes of a network's weights, which are nearly all of it."""
    return sum(_size(tensor) for tensor in tensors(model))


def _size(tensor: TensorProto) -> int:
    numbers = 4 * len(tensor.float_data) + 4 * len(tensor.int32_data)
    return len(tensor.raw_data) + numbers + 8 * (len(tensor.int64_data) + len(tensor.double_data))


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every stored tensor: weights, and constants in the attributes of operators."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _of_graph(graph)
