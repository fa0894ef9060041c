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
from onnx import TensorProto, helper, load_model_from_string, save_model

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


def load(backend: ModuleType, folder: Path, network: bytes | None = b"", **config: Any) -> Any:
    """Load a network, by default one that gathers rows, with a configuration; None for the network that is there."""
    (folder / "1").mkdir(exist_ok=True)
    if network is not None:
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


@pytest.mark.parametrize("shape", [(7, 1), (605, 95), (), (0, 1)])
def test_an_output_without_a_row_for_each_item_is_never_cut(
    backend: ModuleType, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """The error names the output, because its rows cannot be assigned to requests."""
    model = load(backend, tmp_path)
    model._session = SimpleNamespace(run=lambda names, feed: [np.zeros(shape, np.float32)])
    sentence = f"backend_error@network: the output 'OUTPUT' has the shape {list(shape)} for a batch of 1"
    assert answers(model.execute([Request(0), Request(1)])) == [("invalid", sentence)] * 2


def test_a_folder_holds_the_network_beside_its_weights(backend: ModuleType, tmp_path: Path) -> None:
    """`model.onnx/` has a model.onnx inside, which names its weights relative to itself."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [4], np.arange(4, dtype=np.float32).tobytes(), raw=True)
    network = load_model_from_string(base64.b64decode(GATHER))
    network.graph.initializer[0].CopyFrom(table)
    folder = tmp_path / "1" / "model.onnx"
    folder.mkdir(parents=True)
    save_model(network, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (folder / "weights.bin").is_file()
    model = load(backend, tmp_path, network=None)
    assert answers(model.execute([Request(2)])) == [[[2.0]]]
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelException, match=r"^The version folder 1 has no file 'model.onnx/model.onnx'.$"):
        load(backend, tmp_path, network=None)


def test_a_library_of_operators_that_is_missing_keeps_the_model_from_loading(
    backend: ModuleType, tmp_path: Path
) -> None:
    """NVIDIA's backend registers it before it loads the network."""
    config = {"model_operations": {"op_library_filename": ["libmissing.so"]}}
    with pytest.raises(ModelException, match=r"^The op_library_filename 'libmissing.so' cannot be loaded: "):
        load(backend, tmp_path, **config)


def test_what_nvidias_backend_refuses_keeps_the_model_from_loading(backend: ModuleType, tmp_path: Path) -> None:
    """Options and tensors alike, each with its sentence."""
    with pytest.raises(ModelException, match="'execution_mode' must be 0"):
        load(backend, tmp_path, parameters={"execution_mode": {"string_value": "2"}})
    with pytest.raises(ModelException, match="'INPUT' cannot be optional"):
        load(backend, tmp_path, input=[INPUT | {"optional": True}])


def test_openvino_is_taken_and_its_absence_is_said(
    backend: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The container has it; here the network runs on the CPU without."""
    accelerators = {"cpu_execution_accelerator": [{"name": "openvino"}]}
    model = load(backend, tmp_path, optimization={"execution_accelerators": accelerators})
    assert answers(model.execute([Request(1)])) == [[[1.0]]]
    assert "configured for OpenVINO" in caplog.text


def of_one_node(kind: str, data_type: int, shape: list[int | str]) -> bytes:
    """Return a network of one node from INPUT to OUTPUT."""
    tensors = [helper.make_tensor_value_info(name, data_type, shape) for name in ("INPUT", "OUTPUT")]
    graph = helper.make_graph([helper.make_node(kind, ["INPUT"], ["OUTPUT"])], "one", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_strings_pass_through_the_network(backend: ModuleType, tmp_path: Path) -> None:
    """Triton hands them over as bytes, ONNX Runtime takes and gives text; bytes that are no UTF-8 fail alone."""
    text = {"data_type": "TYPE_STRING"}
    network = of_one_node("Identity", TensorProto.STRING, ["N", 1])
    model = load(backend, tmp_path, network, input=[INPUT | text], output=[OUTPUT | text])
    requests = [Request(0), Request(0), Request(0)]
    for request, word in zip(requests, ("grün".encode(), b"\xff", b"b"), strict=True):
        request.tensors["INPUT"].array = np.array([[word]], np.object_)
    broken = ("invalid", "backend_error@network: the network failed on this input")
    assert answers(model.execute(requests)) == [[["grün".encode()]], broken, [[b"b"]]]


def test_a_single_number_has_the_dims_of_the_config(backend: ModuleType, tmp_path: Path) -> None:
    """The network's tensor has no axis, Triton's has one of size 1."""
    one, network = {"dims": [1]}, of_one_node("Neg", TensorProto.FLOAT, [])
    entries = {"input": [INPUT | one | {"data_type": "TYPE_FP32"}], "output": [OUTPUT | one]}
    model = load(backend, tmp_path, network, max_batch_size=0, **entries)
    request = Request(0)
    request.tensors["INPUT"].array = np.array([3], np.float32)
    (response,) = model.execute([request])
    assert response.tensors[0].array.tolist() == [-3.0]
    assert response.tensors[0].array.shape == (1,)


def test_an_optional_weight_is_the_networks_own_unless_given(backend: ModuleType, tmp_path: Path) -> None:
    """Without batches NVIDIA's backend takes a weight that the network lists as an input."""
    network = load_model_from_string(base64.b64decode(GATHER))
    network.ir_version = 8
    network.graph.input.append(helper.make_tensor_value_info("table", TensorProto.FLOAT, [4]))
    entries = [
        INPUT | {"dims": [-1, 1]},
        {"name": "table", "data_type": "TYPE_FP32", "dims": [4], "optional": True},
    ]
    output = [OUTPUT | {"dims": [-1, 1]}]
    model = load(backend, tmp_path, network.SerializeToString(), max_batch_size=0, input=entries, output=output)
    given = Request(1)
    given.tensors["table"] = Tensor("table", np.array([9, 8, 7, 6], np.float32))
    assert answers(model.execute([Request(1), given])) == [[[1.0]], [[8.0]]]


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
    texts |= {"enable_mem_pattern": "Off", "enable_mem_arena": "0"}
    parameters = {name: {"string_value": text} for name, text in texts.items()}
    made = backend.options(
        backend.RuntimeOptions.of({"parameters": parameters, "optimization": {"graph": {"level": 1}}})
    )
    assert (made.intra_op_num_threads, made.inter_op_num_threads) == (3, 2)
    assert made.execution_mode == backend.onnxruntime.ExecutionMode.ORT_PARALLEL
    assert made.graph_optimization_level == backend.onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    assert made.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert (made.enable_mem_pattern, made.enable_cpu_mem_arena) == (False, False)
    default = backend.options(backend.RuntimeOptions())
    assert (default.enable_mem_pattern, default.enable_cpu_mem_arena) == (True, True)
    assert (default.intra_op_num_threads, default.inter_op_num_threads) == (0, 0)
    assert default.graph_optimization_level == backend.onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_the_folder_hides_no_package() -> None:
    """An `__init__.py` beside the backend would be imported instead of the real ONNX Runtime."""
    assert sorted(path.name for path in FILE.parent.iterdir() if path.suffix == ".py") == ["model.py"]
