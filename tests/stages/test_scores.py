"""Raw outputs become probabilities and the best classes; values that are not probabilities are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stages import scores
from stages.serving import RefusalError


def test_softmax_gives_the_exact_values() -> None:
    """exp(x) over its sum: for 0, ln 2 and ln 5 that is 1/8, 2/8 and 5/8."""
    logits = np.array([[0, math.log(2), math.log(5)], [7, 7, 7]], np.float32)
    expected = np.array([[1 / 8, 2 / 8, 5 / 8], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(scores.softmax(logits), expected, rtol=1e-6)


def test_sigmoid_gives_the_exact_values() -> None:
    """1 / (1 + exp(-x)): for ln 3 that is 3/4, for -ln 3 it is 1/4."""
    actual = scores.sigmoid(np.array([0, math.log(3), -math.log(3)], np.float32))
    np.testing.assert_allclose(actual, [0.5, 0.75, 0.25], rtol=1e-6)


@pytest.mark.parametrize("function", [scores.softmax, scores.sigmoid])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_largest_logits_neither_overflow_nor_warn(function: object, dtype: type) -> None:
    """The ends of the type's range give 1 and 0 exactly, as float32."""
    end = float(np.finfo(dtype).max)
    actual = function(np.array([[end, -end]], dtype))  # type: ignore[operator]
    assert actual.dtype == np.float32
    assert actual.tolist() == [[1, 0]]


def test_no_activation_takes_probabilities_as_they_are_and_clips_their_rounding() -> None:
    """Half precision may give 1.0005; that is 1."""
    actual = scores.activate(np.array([0.25, 1.0005, -0.0005], np.float16), "none")
    assert actual.tolist() == [0.25, 1, 0]


@pytest.mark.parametrize(
    ("values", "activation"),
    [([0.1, 3.5], "none"), ([-0.5, 0.1], "none")]
    + [([0.1, bad], activation) for bad in (math.nan, math.inf, -math.inf) for activation in scores.ACTIVATIONS],
)
def test_invalid_probabilities_are_refused(values: list[float], activation: str) -> None:
    """A network that gives NaN, infinity, or raw logits as probabilities has failed."""
    with pytest.raises(RefusalError) as caught:
        scores.activate(np.array(values, np.float32), activation)
    assert caught.value.code == "backend_error"


def test_a_bad_row_is_refused_without_its_neighbours() -> None:
    """Rows are computed as one array, but a NaN only fails its own item."""
    rows = [np.array(row, np.float32) for row in ([0, 0], [math.nan, 0], [5, 5])]
    first, second, third = scores.probabilities(rows, "softmax")
    assert isinstance(second, RefusalError)
    assert second.code == "backend_error"
    assert [first.tolist(), third.tolist()] == [[0.5, 0.5], [0.5, 0.5]]  # type: ignore[union-attr]


def test_the_best_are_those_of_a_full_sort() -> None:
    """For any k, with many ties: by score, then by the lower id."""
    generator = np.random.default_rng(0)
    for size in (1, 2, 10, 1000):
        values = generator.integers(0, 5, size).astype(np.float32) / 5
        expected = sorted(range(size), key=lambda index: (-values[index], index))
        for k in {1, size // 2 or 1, size}:
            ranking = scores.best(values, k)
            assert ranking.class_ids.tolist() == expected[:k]
            assert ranking.scores.tolist() == [values[index] for index in expected[:k]]
            assert [array.dtype for array in ranking] == [np.int32, np.float32]


@pytest.mark.parametrize("value", [0, 11, -1, 2.0, "3", True, None])
def test_only_whole_numbers_within_bounds_are_taken(value: object) -> None:
    """Everything else is refused with the option's name and its bounds."""
    with pytest.raises(RefusalError, match="top_k must be a whole number from 1 to 10") as caught:
        scores.whole_number({"top_k": value}, "top_k", 5, 1, 10)
    assert caught.value.code == "invalid_parameter"


def test_a_whole_number_has_a_default_and_inclusive_bounds() -> None:
    """1 and 10 are within 1 to 10."""
    found = [scores.whole_number(options, "top_k", 5, 1, 10) for options in ({}, {"top_k": 1}, {"top_k": 10})]
    assert found == [5, 1, 10]
