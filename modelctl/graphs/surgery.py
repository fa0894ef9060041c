"""The few changes that let Triton serve an ONNX file; names and answers stay the same.

    free_batch, fix_sizes, flatten   for `modelctl.sources`
    declare                          for `modelctl add`, after the conversion to a precision

For a network that batches, NVIDIA's ONNX Runtime backend requires that the first axis of every input and output is
free, and that the other sizes of its outputs equal the configuration's. It compares the shapes that ONNX Runtime infers
from the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper, version_converter

from modelctl.errors import CommandError
from modelctl.graphs import networks

PREFIX = "batch/"
OLDEST_SLICE = 10  # the opset since which Slice takes its bounds as inputs


def free_batch(model: onnx.ModelProto) -> None:
    """Give every input and output a free first axis, as Triton requires; nodes may still assume a fixed batch."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for entry in (*model.graph.input, *model.graph.output):
        if entry.name not in weights and entry.type.tensor_type.shape.dim:
            entry.type.tensor_type.shape.dim[0].dim_param = networks.BATCH
    del model.graph.value_info[:]  # shapes inferred for the old batch


def fix_sizes(model: onnx.ModelProto, name: str, sizes: Mapping[int, int]) -> None:
    """Set sizes of an input's axes."""
    for entry in model.graph.input:
        if entry.name == name:
            for axis, size in sizes.items():
                entry.type.tensor_type.shape.dim[axis].dim_value = size
    del model.graph.value_info[:]


def flatten(model: onnx.ModelProto, output: str) -> None:
    """Reshape an output from [N, C, 1, 1] to [N, C]."""
    entry = next(entry for entry in model.graph.output if entry.name == output)
    inside = rename(model, output, "/unflattened")
    model.graph.node.append(helper.make_node("Flatten", [inside], [output], f"{output}/flatten", axis=1))
    del entry.type.tensor_type.shape.dim[2:]


def declare(path: Path, outputs: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Declare the sizes of the outputs in the file at `path`: a free batch, then `outputs` (-1 is any size).

    Returns:
        the sizes by output, without the batch, as ONNX Runtime reads them.

    Raises:
        CommandError: when the batch cannot be freed, or when the network's outputs have other sizes.

    """
    model = onnx.load(str(path))
    networks.save(_with_sizes(model, outputs), path)
    fixed = [name for name, shape in _shapes(path).items() if isinstance(shape[0], int)]
    if fixed:
        networks.save(_with_sizes(_hide_batch(model, fixed), outputs), path)
    shapes = _shapes(path)
    if any(isinstance(shape[0], int) for shape in shapes.values()):
        raise CommandError("The network has a fixed batch that cannot be freed: export it with a dynamic batch.")
    return {name: [size if isinstance(size, int) else -1 for size in shape[1:]] for name, shape in shapes.items()}


def _with_sizes(model: onnx.ModelProto, outputs: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    free_batch(model)
    for entry in model.graph.output:
        shape = entry.type.tensor_type.shape
        del shape.dim[:]
        shape.dim.add(dim_param=networks.BATCH)
        for axis, size in enumerate(outputs[entry.name]):
            shape.dim.add(**({"dim_value": size} if size > 0 else {"dim_param": f"{entry.name}/{axis}"}))
    return model


def _shapes(path: Path) -> dict[str, list[int | str | None]]:
    return {output.name: output.shape for output in networks.session(path).get_outputs()}


def _hide_batch(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """Slice outputs to the number of input items: this removes nothing, but shape inference cannot know that."""
    opset = opset_of(model)
    if opset < OLDEST_SLICE:
        try:
            model = version_converter.convert_version(model, OLDEST_SLICE)
        except Exception as error:
            raise CommandError(
                f"The network has a fixed batch, and its opset {opset} is too old to free it: "
                f"export it with a dynamic batch, or with opset {OLDEST_SLICE} or later."
            ) from error
    inputs, _ = networks.ports(model)
    count = PREFIX + "count"
    nodes = [helper.make_node("Shape", [inputs[0].name], [PREFIX + "shape"], PREFIX + "shape")]
    nodes.append(_slice(PREFIX + "shape", PREFIX + "one", count))
    nodes += [_slice(rename(model, name, "/one"), count, name) for name in outputs]
    model.graph.node.extend(nodes)
    bounds = {"zero": 0, "one": 1}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), PREFIX + name) for name, value in bounds.items()
    )
    return model


def _slice(source: str, end: str, target: str) -> NodeProto:
    return helper.make_node("Slice", [source, PREFIX + "zero", end], [target], f"{target}/slice")


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a network uses; 0 when it names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def rename(model: onnx.ModelProto, tensor: str, ending: str) -> str:
    """Rename a tensor in all nodes; return its new name."""
    inside = tensor + ending
    for node in model.graph.node:
        node.output[:] = [inside if name == tensor else name for name in node.output]
        node.input[:] = [inside if name == tensor else name for name in node.input]
    return inside
