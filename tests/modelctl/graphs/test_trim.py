"""A trimmed network answers as the untrimmed one does, at the length of its longest text."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelctl.graphs.trim import trim_to_longest, untrim

LENGTH = 12


def masked_mean(mask_name: str = "attention_mask", kind: int = TensorProto.INT64) -> onnx.ModelProto:
    """Return a network with two outputs: the mean of a table's rows over real tokens, and its input's length."""
    table = np.random.default_rng(1).standard_normal((30, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", [mask_name], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "two"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["real", "one"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], ["mean"]),
        helper.make_node("Shape", ["input_ids"], ["seen"]),
    ]
    inputs = [helper.make_tensor_value_info(name, kind, ["N", LENGTH]) for name in ("input_ids", mask_name)]
    outputs = [
        helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["N", 4]),
        helper.make_tensor_value_info("seen", TensorProto.INT64, [2]),
    ]
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([2], np.int64), "two"),
    ]
    graph = helper.make_graph(nodes, "mean", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, lengths: list[int], kind: type[np.integer[Any]] = np.int64) -> list[Any]:
    """Return the network's outputs for texts of these lengths, padded to LENGTH."""
    mask = (np.arange(LENGTH) < np.array(lengths)[:, None]).astype(kind)
    ids = np.random.default_rng(0).integers(1, 30, mask.shape, kind) * mask
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    made: list[Any] = session.run(["mean", "seen"], {"input_ids": ids, "attention_mask": mask})
    return made


@pytest.mark.parametrize("lengths", [[3], [12], [5, 1, 9, 2], [12, 1]])
def test_answers_stay_equal_and_the_length_is_the_longest(lengths: list[int]) -> None:
    expected, _ = run(masked_mean(), lengths)
    actual, seen = run(trim_to_longest(masked_mean()), lengths)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert [len(lengths), max(lengths)] == seen.tolist()


def test_numbers_of_32_bits_are_trimmed_as_well() -> None:
    expected, _ = run(masked_mean(kind=TensorProto.INT32), [5, 2], np.int32)
    actual, seen = run(trim_to_longest(masked_mean(kind=TensorProto.INT32)), [5, 2], np.int32)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert seen.tolist() == [2, 5]


def test_a_batch_without_any_token_keeps_one_column() -> None:
    _, seen = run(trim_to_longest(masked_mean()), [0, 0])
    assert seen.tolist() == [2, 1]


def test_inputs_keep_names_types_and_shapes() -> None:
    assert list(masked_mean().graph.input) == list(trim_to_longest(masked_mean()).graph.input)


def test_untrim_gives_the_former_network_back() -> None:
    assert masked_mean() == untrim(trim_to_longest(masked_mean()))


def test_a_network_without_a_mask_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the graph has no input 'attention_mask'$"):
        trim_to_longest(masked_mean("mask"))


def test_a_trimmed_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the graph is trimmed already$"):
        trim_to_longest(trim_to_longest(masked_mean()))
