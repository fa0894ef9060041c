"""Whether the first axis of a network's outputs is the batch, from what a trial gave.

two items --> each alone, both together, the first again --trial--> does it batch, which outputs have no batch
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelctl.graphs.networks import Arrays
from modelctl.graphs.trial import Trial

FIRST, SECOND, BOTH, AGAIN = range(4)
"""The runs of a trial of `feeds`."""


def feeds(sample: Arrays) -> list[Arrays]:
    """Return the inputs of a trial; `sample` holds two different items."""
    one, other = ({name: array[index : index + 1] for name, array in sample.items()} for index in range(2))
    return [one, other, sample, one]


def fits(trial: Trial) -> bool:
    """Tell whether two items together get the answers that each gets alone."""
    singles, together = (trial.made(FIRST), trial.made(SECOND)), trial.runs[BOTH]
    if isinstance(together, str):
        return False
    return all(
        array.shape[:1] == (2,)
        and all(_close(array[index : index + 1], one[name]) for index, one in enumerate(singles))
        for name, array in together.items()
    )


def is_steady(trial: Trial) -> bool:
    """Tell whether the network gives the same outputs for the same item."""
    return same(trial.made(FIRST), trial.made(AGAIN))


def same(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Tell whether two runs gave the same outputs, up to rounding."""
    return one.keys() == other.keys() and all(_close(array, other[name]) for name, array in one.items())


def whole(trial: Trial) -> dict[str, list[int]]:
    """Return the outputs whose first axis is not the batch, with their sizes for one item.

    Its size for one item is not 1, in any run of one item, or it is neither 1 nor 2 for two. (A first axis that is 1
    for two items as well is served for single items, where nothing is lost.)
    """
    found: dict[str, list[int]] = {}
    for number, made in enumerate(trial.runs):
        for name, array in made.items() if not isinstance(made, str) else ():
            if array.shape[:1] not in ([(1,), (2,)] if number == BOTH else [(1,)]):
                found.setdefault(name, list(array.shape))
    return found


def _close(one: object, other: object) -> bool:
    left, right = np.asarray(one), np.asarray(other)
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.dtype.kind in "fc":
        return bool(np.allclose(left, right, rtol=1e-3, atol=1e-4, equal_nan=True))
    return bool(np.array_equal(left, right))
