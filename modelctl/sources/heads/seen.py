"""What recognition reads (`Seen`), and what a family answers (`Fit`, or `MisfitError` with the reason)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelctl.sources.heads import values
from modelctl.sources.heads.values import Array


class MisfitError(Exception):
    """The outputs are not those of a family; the message continues "it is not X, because ..."."""


class EmptyError(MisfitError):
    """The outputs are those of a family, but hold no object that would tell how they are written."""


@dataclass(frozen=True)
class Fit:
    """How a head is read.

    Attributes:
        decoder: the family.
        roles: the output's name by the role it plays.
        line: in words, such as "YOLOv8: 84 = 4 + 80".
        classes: how many; None when the outputs do not tell.
        settings: further keys of the spec's `postprocess`.
        doubts: sentences on what the values leave open.

    """

    decoder: str
    roles: Mapping[str, str]
    line: str
    classes: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    doubts: Sequence[str] = ()


@dataclass(frozen=True)
class Seen:
    """A detector's outputs on sample pictures.

    Attributes:
        outputs: by name, one array a picture, each with the batch of one as its first axis.
        size: width and height of the network's input; 0 where they are free.
        options: of `modelctl add`.
        labels: the class names, background included where the file has it; empty when unknown.
        head: the name of the head in the file's metadata, such as RTDETRDecoder; empty where it has none.
        unbatched: whether the outputs had no batch axis before one was inserted.
        forced: whether the user named this family: shapes must fit then, values need not.

    """

    outputs: Mapping[str, Sequence[Array]]
    size: tuple[int, int]
    options: argparse.Namespace
    labels: Sequence[str] = ()
    head: str = ""
    unbatched: bool = False
    forced: bool = False

    def require(self, holds: bool, reason: str) -> None:
        """Raise MisfitError unless it holds or the user named the family."""
        if not holds and not self.forced:
            raise MisfitError(reason)

    def option(self, name: str) -> Any:
        """Return an option's value; None when it was not given."""
        return getattr(self.options, name, None)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an output for the first picture, without the batch."""
        return tuple(self.outputs[name][0].shape[1:])

    def rows(self, name: str, width: int | None = None) -> Array:
        """Return an output of all pictures as rows [N, width], FP64; by default as wide as its last axis."""
        arrays = self.outputs[name]
        wide = width or arrays[0].shape[-1]
        rows: Array = np.concatenate([array.reshape(-1, wide) for array in arrays]).astype(np.float64)
        return rows

    def one(self, axes: int) -> str:
        """Return the name of the only output, which has so many axes without the batch."""
        if len(self.outputs) != 1:
            raise MisfitError(f"it writes one output, not {len(self.outputs)}")
        (name,) = self.outputs
        if len(self.shape(name)) != axes:
            raise MisfitError(f"its output has {axes + 1} axes, not {len(self.shape(name)) + 1}")
        return name

    def require_scores(self, scores: Array) -> None:
        """Require probabilities, unless an activation makes them so."""
        if self.option("activation") in (None, "none"):
            self.require(
                values.are_probabilities(scores),
                f"its scores would be {values.spread(scores)}, not 0 to 1 (raw: --activation sigmoid)",
            )

    def is_grid(self, rows: int, per_cell: Sequence[int]) -> bool:
        """Tell whether so many rows are those of all cells of several levels, which overlap until NMS.

        A network that suppresses writes few rows; 300 may be the cells of one level by chance.
        """
        found = values.grid_of(rows, self.size, per_cell) if all(self.size) else None
        return found is not None and len(found[1]) > 1 and rows > max(self.size)

    def require_centres(self, boxes: Array) -> None:
        """Require boxes as centre and size."""
        unit = values.unit_of(boxes)
        limit = values.size_in(unit, self.size, boxes)
        self.require(values.share(boxes, "corners", limit) < values.MOST or not unit, "its boxes would be corners")
        self.require(values.share(boxes, "centre", limit) >= values.MOST, "its boxes would leave the picture")

    def unit(self, boxes: Array, default: str) -> dict[str, str]:
        """Return the setting `box_unit` where it is not the family's default."""
        found = self.option("box_unit") or values.unit_of(boxes) or default
        return {} if found == default else {"box_unit": found}


def shapes(outputs: Mapping[str, Sequence[Array]]) -> str:
    """Return the names and shapes of outputs in words."""
    return ", ".join(f"{name} {list(arrays[0].shape)}" for name, arrays in outputs.items())
