"""Stored weights come back as float32, as exact as their storage allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelctl.row_bytes import row_bytes
from training.onnx_store import byte_weights, half_weights, read_weights

RANDOM = np.random.default_rng(3)
TABLE = RANDOM.standard_normal((50, 16)).astype(np.float32)
MATRIX = (RANDOM.standard_normal((16, 20)) * np.geomspace(0.01, 10, 20)).astype(np.float32)
SHIFT = RANDOM.standard_normal(20).astype(np.float32)
IDS = np.arange(50)


def network() -> onnx.ModelProto:
    """Return a network: rows of a table, times a matrix, plus a shift."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "matrix"], ["product"]),
        helper.make_node("Add", ["product", "shift"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 20])],
        [numpy_helper.from_array(v, n) for n, v in (("table", TABLE), ("matrix", MATRIX), ("shift", SHIFT))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, ids: Any = IDS) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": ids})[0]


def test_half_weights_are_the_weights_rounded_to_float16() -> None:
    expected = TABLE.astype(np.float16).astype(np.float32) @ MATRIX.astype(np.float16).astype(np.float32) + SHIFT
    np.testing.assert_allclose(run(half_weights(network(), least=21)), expected, rtol=1e-5, atol=1e-5)


def test_byte_weights_are_within_half_a_step_of_each_channel() -> None:
    rows = np.round(TABLE / (np.abs(TABLE).max(1, keepdims=True) / 127)) * (np.abs(TABLE).max(1, keepdims=True) / 127)
    columns = np.round(MATRIX / (np.abs(MATRIX).max(0) / 127)) * (np.abs(MATRIX).max(0) / 127)
    np.testing.assert_allclose(run(byte_weights(network(), least=21)), rows @ columns + SHIFT, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("store", "kind"), [(half_weights, TensorProto.FLOAT16), (byte_weights, TensorProto.INT8)])
def test_only_weights_of_the_least_size_are_stored(store: Any, kind: int) -> None:
    stored = {t.name: t.data_type for t in store(network(), 21).graph.initializer if not t.name.endswith("_scale")}
    assert {"shift": TensorProto.FLOAT, kind: 2} == {
        "shift": stored["shift"],
        kind: sum(value == kind for value in stored.values()),
    }


@pytest.mark.parametrize("store", [half_weights, byte_weights, lambda model, least: row_bytes(model)])
def test_weights_that_are_read_back_are_stored_as_the_same_bytes(store: Any) -> None:
    stored = store(network(), 21)
    weights = read_weights(stored)
    again = network()
    for tensor in again.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    assert store(again, 21).SerializeToString() == stored.SerializeToString()


def test_every_scale_survives_being_read_back() -> None:
    random = np.random.default_rng(7)
    matrix = (random.standard_normal((4, 20000)) * np.exp(random.uniform(-30, 30, 20000))).astype(np.float32)
    matrix[:, 0] = 0
    model = network()
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(matrix, "matrix"))
    stored = row_bytes(model)
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored.graph.initializer}
    again = network()
    again.graph.initializer[1].CopyFrom(numpy_helper.from_array(read_weights(stored)["matrix"], "matrix"))
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in row_bytes(again).graph.initializer}
    np.testing.assert_array_equal(after["matrix_int8"], before["matrix_int8"])
    np.testing.assert_array_equal(after["matrix_scale"], before["matrix_scale"])


@pytest.mark.parametrize("store", [half_weights, byte_weights])
def test_a_table_is_gathered_before_it_is_widened(store: Any) -> None:
    first = next(node for node in store(network(), 21).graph.node if node.op_type == "Gather")
    assert first.input[0] != "table"


def test_rows_in_bytes_stay_near_the_float_answer() -> None:
    expected = run(network())
    actual = run(row_bytes(network()))
    assert (np.abs(actual - expected) <= np.abs(expected).max(0) * 0.03).all()


def test_a_row_in_bytes_does_not_know_its_neighbours() -> None:
    model = row_bytes(network())
    alone = np.concatenate([run(model, IDS[i : i + 1]) for i in range(len(IDS))])
    np.testing.assert_array_equal(run(model), alone)


def test_a_row_of_zeros_stays_zero() -> None:
    model = network()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros_like(TABLE), "table"))
    np.testing.assert_array_equal(run(row_bytes(model)), np.tile(SHIFT, (50, 1)))
