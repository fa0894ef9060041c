"""The stand-in for NVIDIA's ONNX Runtime backend batches, splits, and keeps a fault with the request that caused it.

The embedded server runs it in `tests/e2e`; here its own decisions are seen, with Triton's Python API replaced by the
few classes it uses.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

FILE = Path(__file__).resolve().parents[2] / "backends/onnxruntime/model.py"
# INPUT INT64 [N, 1] -> OUTPUT FP32 [N, 1] = table[INPUT], a Gather on the table 0, 1, 2, 3: any other index fails.
GATHER = (
    "CAg6dwoeCgV0YWJsZQoFSU5QVVQSBk9VVFBVVCIGR2F0aGVyEgFnKh0IBBABQgV0YWJsZUoQAAAAAAAAgD8AAABAAABAQFoYCgVJTlBVVBIPCg0I"
    "BxIJCgMSAU4KAggBYhkKBk9VVFBVVBIPCg0IARIJCgMSAU4KAggBQgQKABAR"
)
INPUT = {"name": "INPUT", "data_type": "TYPE_INT64", "dims": [1]}
OUTPUT = {"name": "OUTPUT", "data_type": "TYPE_FP32", "dims": [1]}


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: Any) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> Any:
        return self.array


class Error:
    """An error with a code."""

    INVALID_ARG = "invalid"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


class Request:
    """A request for some indices."""

    def __init__(self, *indices: int, outputs: tuple[str, ...] = ("OUTPUT",)) -> None:
        self.tensors = {"INPUT": Tensor("INPUT", np.array(indices, np.int64).reshape(-1, 1))}
        self.outputs = outputs

    def requested_output_names(self) -> tuple[str, ...]:
        return self.outputs


class ModelException(Exception):  # noqa: N818 - Triton's name ends so
    """The error that keeps a model from loading."""


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The backend's module, as a process of Triton would import it."""
    api = SimpleNamespace(
        Tensor=Tensor,
        TritonError=Error,
        TritonModelException=ModelException,
        InferenceResponse=lambda tensors=(), error=None: SimpleNamespace(tensors=tensors, error=error),
        get_input_tensor_by_name=lambda request, name: request.tensors.get(name),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", api)
    spec = importlib.util.spec_from_file_location("onnxruntime_backend", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(backend: ModuleType, folder: Path, network: bytes = b"", **config: Any) -> Any:
    """Load a network, by default one that gathers rows, with a configuration."""
    (folder / "1").mkdir(exist_ok=True)
    (folder / "1" / "model.onnx").write_bytes(network or base64.b64decode(GATHER))
    model = backend.TritonPythonModel()
    whole = {"max_batch_size": 8, "input": [INPUT], "output": [OUTPUT], **config}
    args = {"model_name": "gather", "model_version": "1", "model_instance_kind": "CPU", "model_instance_device_id": "0"}
    model.initialize({**args, "model_repository": str(folder), "model_config": json.dumps(whole)})
    return model


def answers(responses: list[Any]) -> list[Any]:
    """Return each response's numbers, or its error's code and message."""
    return [
        (one.error.code, one.error.message) if one.error else [tensor.array.ravel().tolist() for tensor in one.tensors]
        for one in responses
    ]


class Counted:
    """A session that counts its runs."""

    def __init__(self, session: Any) -> None:
        self.session, self.rows = session, []  # type: ignore[var-annotated]

    def run(self, names: list[str], feed: dict[str, Any]) -> Any:
        self.rows.append(len(feed["INPUT"]))
        return self.session.run(names, feed)


def test_requests_run_as_one_batch_and_are_split_again(backend: ModuleType, tmp_path: Path) -> None:
    """One run for three requests of one, two and one item."""
    model = load(backend, tmp_path)
    model._session = Counted(model._session)
    assert answers(model.execute([Request(0), Request(1, 2), Request(3)])) == [[[0.0]], [[1.0, 2.0]], [[3.0]]]
    assert model._session.rows == [4]


def test_a_request_that_breaks_the_network_fails_alone(
    backend: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Other requests are answered; its error names the step and no path; the log has the full text."""
    model = load(backend, tmp_path)
    broken = ("invalid", "backend_error@network: the network failed on this input")
    assert answers(model.execute([Request(0), Request(100), Request(3)])) == [[[0.0]], broken, [[3.0]]]
    assert "indices" in caplog.text


def test_requests_of_other_shapes_run_apart(backend: ModuleType, tmp_path: Path) -> None:
    """They cannot form one array; answers keep the order of the requests."""
    model = load(backend, tmp_path)
    model._session = Counted(SimpleNamespace(run=lambda names, feed: [feed["INPUT"].astype(np.float32)]))
    wide = Request(1, 2)
    wide.tensors["INPUT"].array = np.array([[1, 2]], np.int64)
    assert answers(model.execute([Request(0), wide, Request(3)])) == [[[0.0]], [[1.0, 2.0]], [[3.0]]]
    assert model._session.rows == [2, 1]


def test_a_network_that_mixes_its_items_is_not_split_by_guess(backend: ModuleType, tmp_path: Path) -> None:
    """An output without one row per item cannot be assigned to requests."""
    model = load(backend, tmp_path)
    model._session = SimpleNamespace(run=lambda names, feed: [np.zeros((7, 1), np.float32)])
    assert [code for code, _ in answers(model.execute([Request(0), Request(1)]))] == ["invalid", "invalid"]


def test_without_batching_each_request_runs_alone(backend: ModuleType, tmp_path: Path) -> None:
    """With max_batch_size 0, the first axis belongs to the network."""
    free = {"dims": [-1, 1]}
    model = load(backend, tmp_path, max_batch_size=0, input=[INPUT | free], output=[OUTPUT | free])
    model._session = Counted(model._session)
    assert answers(model.execute([Request(0), Request(1, 2)])) == [[[0.0]], [[1.0, 2.0]]]
    assert model._session.rows == [1, 2]


def test_only_requested_outputs_are_answered(backend: ModuleType, tmp_path: Path) -> None:
    """A request may want no output at all."""
    model = load(backend, tmp_path)
    assert answers(model.execute([Request(0), Request(1, outputs=())])) == [[[0.0]], []]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"input": [INPUT | {"name": "IN"}]}, "needs the input 'INPUT', which the config lacks"),
        ({"input": [INPUT, INPUT | {"name": "MORE"}]}, "has no input 'MORE'; it has INPUT"),
        ({"output": [OUTPUT | {"name": "OUT"}]}, "has no output 'OUT'; it has OUTPUT"),
        ({"input": [INPUT | {"data_type": "TYPE_FP32"}]}, "'INPUT' is TYPE_FP32 in the config and TYPE_INT64"),
        ({"input": [INPUT | {"dims": [3]}]}, "'INPUT' has the shape"),
        ({"output": [OUTPUT | {"dims": [1, 1]}]}, "'OUTPUT' has the shape"),
        ({"default_model_filename": "other.onnx"}, "version folder 1 has no file 'other.onnx'"),
    ],
)
def test_a_config_that_does_not_fit_the_network_keeps_it_from_loading(
    backend: ModuleType, tmp_path: Path, config: dict[str, Any], sentence: str
) -> None:
    """The sentence names the difference and the network's own value."""
    with pytest.raises(ModelException, match=sentence):
        load(backend, tmp_path, **config)


def sized(given: list[int | str], made: list[int | str]) -> bytes:
    """Return the gathering network with other declared sizes; the operator that computes them declares none."""
    node = helper.make_node("Expand", ["INPUT", "SHAPE"], ["WIDE"])
    cast = helper.make_node("Cast", ["WIDE"], ["OUTPUT"], to=TensorProto.FLOAT)
    shape = helper.make_node("Shape", ["INPUT"], ["SHAPE"])
    inputs = [helper.make_tensor_value_info("INPUT", TensorProto.INT64, given)]
    outputs = [helper.make_tensor_value_info("OUTPUT", TensorProto.FLOAT, made)]
    graph = helper.make_graph([shape, node, cast], "sized", inputs, outputs)
    made_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made_model.SerializeToString())


@pytest.mark.parametrize(
    ("given", "made", "config", "culprit"),
    [
        (["N", 1], ["N", 1], {}, None),
        (["N", "L"], ["N", 1], {}, None),  # an input of any size serves a config of one size
        ([1, 1], ["N", 1], {}, "input 'INPUT'"),
        (["N", 1], [1, 1], {}, "output 'OUTPUT'"),
        (["N", "L"], ["N", "L"], {}, "output 'OUTPUT'"),
        (["N", 1], ["N", 1], {"input": [INPUT | {"dims": [-1]}]}, "input 'INPUT'"),
        (["N", "L"], ["N", "L"], {"output": [OUTPUT | {"dims": [-1]}]}, None),
        (["N", 1], ["N", 1], {"output": [OUTPUT | {"dims": [-1]}]}, "output 'OUTPUT'"),
        ([1, 1], [1, 1], {"max_batch_size": 0, **{"input": [INPUT | {"dims": [1, 1]}]}}, "output 'OUTPUT'"),
    ],
)
def test_sizes_are_refused_as_by_nvidias_backend(
    backend: ModuleType, tmp_path: Path, given: Any, made: Any, config: dict[str, Any], culprit: str | None
) -> None:
    """The batch axis must be free, output sizes equal; an input may have more free axes than its config."""
    if culprit is None:
        load(backend, tmp_path, sized(given, made), **config)
        return
    with pytest.raises(ModelException, match=f"The {culprit} has the shape"):
        load(backend, tmp_path, sized(given, made), **config)


def test_options_have_the_names_of_nvidias_backend(backend: ModuleType) -> None:
    """Threads, execution mode and graph level are read, and no thread spins."""
    texts = {"intra_op_thread_count": "3", "inter_op_thread_count": "2", "execution_mode": "1"}
    texts |= {"enable_mem_pattern": "false", "enable_mem_arena": "0"}
    parameters = {name: {"string_value": text} for name, text in texts.items()}
    made = backend.options({"parameters": parameters, "optimization": {"graph": {"level": 1}}})
    assert (made.intra_op_num_threads, made.inter_op_num_threads) == (3, 2)
    assert made.execution_mode == backend.onnxruntime.ExecutionMode.ORT_PARALLEL
    assert made.graph_optimization_level == backend.onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    assert made.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert (made.enable_mem_pattern, made.enable_cpu_mem_arena) == (False, False)
    default = backend.options({})
    assert (default.enable_mem_pattern, default.enable_cpu_mem_arena) == (True, True)
    assert (default.intra_op_num_threads, default.inter_op_num_threads) == (0, 0)
    assert default.graph_optimization_level == backend.onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_the_folder_hides_no_package() -> None:
    """An `__init__.py` beside the backend would be imported instead of the real ONNX Runtime."""
    assert sorted(path.name for path in FILE.parent.iterdir() if path.suffix == ".py") == ["model.py"]
