"""Decodes a head of several outputs inside the graph, so that boxes and scores come out of it.

outputs by level [N, cells, columns] or [N, columns, rows, columns] -->
    BOXES [N, B, 4]: xmin, ymin, xmax, ymax in pixels of the input; SCORES [N, B, C]

Only operators whose meaning is the same in every opset from 7 are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelctl.graphs import networks

Values = npt.NDArray[np.float32]
PREFIX = "levels/"
BOXES, SCORES = "joined_boxes", "joined_scores"


class Decoding:
    """Adds operators to a network; each method returns the name of what they make."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._numbers = count()
        self._types = {entry.name: entry.type.tensor_type.elem_type for entry in model.graph.output}
        self._axes = {entry.name: len(entry.type.tensor_type.shape.dim) for entry in model.graph.output}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator."""
        name = f"{PREFIX}{kind}/{next(self._numbers)}"
        self._model.graph.node.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add a constant."""
        name = f"{PREFIX}constant/{next(self._numbers)}"
        self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def axes(self, output: str) -> int:
        """Return how many axes an output of the network declares."""
        return self._axes[output]

    def real(self, output: str) -> str:
        """Return an output of the network as FP32."""
        if self._types[output] == TensorProto.FLOAT:
            return output
        return self.node("Cast", output, to=int(TensorProto.FLOAT))

    def rows(self, output: str, shape: Sequence[int]) -> str:
        """Return an output of the network as rows [N, cells, columns].

        Args:
            output: its name.
            shape: for one picture, without the batch: [cells, columns], or [columns, rows, columns] of a map.

        """
        made = self.real(output)
        if len(shape) == 3:
            flat = self._reshape(made, shape[0], shape[1] * shape[2])
            return self.node("Transpose", flat, perm=[0, 2, 1])
        return self._reshape(made, *shape)

    def columns(self, rows: str, *wanted: int) -> str:
        """Return some columns of rows."""
        return self.node("Gather", rows, self.constant(wanted, np.int64), axis=2)

    def corners(self, centres: str, sizes: str) -> str:
        """Return centres and sizes as corners."""
        half = self.node("Mul", sizes, self.constant(0.5))
        return self.join(2, self.node("Sub", centres, half), self.node("Add", centres, half))

    def around(self, points: Values, sides: str, stride: int) -> str:
        """Return the corners of boxes whose sides are so many cells to the left, top, right and bottom of points."""
        signed = self.node("Mul", sides, self.constant(np.array([-stride, -stride, stride, stride])))
        return self.node("Add", signed, self.constant(np.tile(points, 2)))

    def expectation(self, rows: str, cells: int, bins: int) -> str:
        """Return the four expected distances of distributions [N, cells, 4 x bins] over 0, 1, ... bins - 1."""
        shares = self.node("Softmax", self._reshape(rows, cells, 4, bins), axis=3)
        return self._reshape(self.node("MatMul", shares, self.constant(np.arange(bins)[:, None])), cells, 4)

    def unit(self, rows: str) -> str:
        """Return values limited to 0 to 1."""
        return self.node("Min", self.node("Max", rows, self.constant(0)), self.constant(1))

    def join(self, axis: int, *parts: str) -> str:
        """Return parts one behind the other."""
        return self.node("Concat", *parts, axis=axis)

    def finish(self, boxes: Sequence[str], scores: Sequence[str]) -> None:
        """Make the parts of each level the network's only outputs."""
        self.replace({BOXES: (self.join(1, *boxes), 3), SCORES: (self.join(1, *scores), 3)})

    def replace(self, made: Mapping[str, tuple[str, int]]) -> None:
        """Make values, given with their number of axes, the network's only outputs, under new names."""
        del self._model.graph.output[:]
        for name, (value, axes) in made.items():
            self._model.graph.node.append(helper.make_node("Identity", [value], [name], f"{PREFIX}{name}"))
            kind, shape = self._types.get(value, TensorProto.FLOAT), [networks.BATCH, *[None] * (axes - 1)]
            self._model.graph.output.append(helper.make_tensor_value_info(name, kind, shape))

    def _reshape(self, value: str, *sizes: int) -> str:
        return self.node("Reshape", value, self.constant([-1, *sizes], np.int64))
