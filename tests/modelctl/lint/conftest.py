"""Broken repositories, each a text file, and the real server that shows their effect.

A case is `cases/<code>.txt`, or `<code>-<what>.txt`. Its head says what the proof needs, then come the files:

    refuses model: text         the server refuses to load `model`, and says `text`
    also TG054                  other rules that find something, rightly
    variant tensorrt            the server is started with --model-config-name=tensorrt
    -- model --                 model/config.pbtxt, and an empty folder model/1
    -- model/labels.txt --      any other file; a name that ends in / is a folder
    -- model/1/model.onnx --    a network that gives its first input back, from lines such as `input X FP32 N 2`
    -- model/1/a.onnx.raw --    the file a.onnx, as it stands here

A rule that the head cannot prove has a test of its own in test_proofs.py.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from modelctl.embedded import installation
from modelctl.embedded.ports import Ports
from modelctl.embedded.server import Launch, Server
from modelctl.embedded.state import StateFolder

ROOT = Path(__file__).resolve().parents[3]
CASES = Path(__file__).parent / "cases"
DEFAULT = 'key: "default"'
SECTION = re.compile(r"^-- (.+) --\n", re.MULTILINE)


@dataclass
class Case:
    """One broken repository."""

    name: str
    code: str
    files: dict[str, str]
    refuses: tuple[str, str] | None = None
    also: set[str] = field(default_factory=set)
    variant: str | None = None

    def write(self, folder: Path) -> Path:
        """Write the repository into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            write(folder, name, text)
        return folder

    @property
    def models(self) -> list[str]:
        """The models, ensembles last: what is loaded first is no ensemble's step any more when it is unloaded."""
        configs = {
            name.split("/")[0]: text
            for name, text in self.files.items()
            if _is_model(name) or name.endswith("/config.pbtxt")
        }
        return sorted(configs, key=lambda name: ("ensemble_scheduling" in configs[name], name))


def _is_model(name: str) -> bool:
    return "/" not in name and "." not in name


def read_case(name: str) -> Case:
    """Read one case."""
    return parse_case((CASES / f"{name}.txt").read_text(), name)


def parse_case(text: str, name: str = "") -> Case:
    """Return the case of a text."""
    head, *parts = SECTION.split(text.lstrip())
    made = Case(name, name.split("-")[0], dict(zip(parts[::2], parts[1::2], strict=True)))
    for line in head.splitlines():
        key, _, rest = line.partition(" ")
        if key == "refuses":
            model, _, said = rest.partition(": ")
            made.refuses = (model, said)
        elif key == "also":
            made.also = set(rest.split())
        elif key == "variant":
            made.variant = rest
        else:
            raise ValueError(f"{name}: {line}")
    return made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize tests that take `case` with all cases, and `refused` with those that the server refuses."""
    cases = [read_case(path.stem) for path in sorted(CASES.glob("*.txt"))]
    for argument, chosen in (("case", cases), ("refused", [case for case in cases if case.refuses])):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, chosen, ids=[case.name for case in chosen])


def write(folder: Path, name: str, text: str) -> None:
    """Write one file of a case."""
    path = folder / name
    if _is_model(name):
        (path / "1").mkdir(parents=True, exist_ok=True)
        path /= "config.pbtxt"
    if name.endswith("/"):
        path.mkdir(parents=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".onnx"):
        path.write_bytes(network(text))
    else:
        path.with_name(path.name.removesuffix(".raw")).write_text(text)


def network(text: str) -> bytes:
    """Return an ONNX model of lines such as `input X FP32 N 2`; each output is the first input."""
    values: dict[str, list[Any]] = {"input": [], "output": []}
    external = ""
    for kind, name, *rest in (line.split() for line in text.splitlines()):
        if kind == "external":
            external = name
            continue
        data_type = {"FP32": TensorProto.FLOAT, "FP16": TensorProto.FLOAT16, "INT64": TensorProto.INT64}[rest[0]]
        shape = [int(size) if size.isdecimal() else size for size in rest[1:]]
        values[kind].append(helper.make_tensor_value_info(name, data_type, shape))
    first = values["input"][0].name
    nodes = [helper.make_node("Identity", [first], [value.name]) for value in values["output"]]
    graph = helper.make_graph(nodes, "identity", values["input"], values["output"])
    if external:
        _add_external(graph, external)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _add_external(graph: Any, location: str) -> None:
    """Make the first node add weights from a separate file."""
    tensor = onnx.TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    graph.initializer.append(tensor)
    graph.node[0].op_type = "Add"
    graph.node[0].input.append("weights")


class Proof:
    """A real server on a repository of its own, in explicit mode.

    Not started by benchmarks/stack.py: `modelctl serve` loads all models at the start, and here each is to be refused.
    """

    def __init__(self, folder: Path, backends: Path, variant: str | None = None, extra: tuple[str, ...] = ()) -> None:
        self.models = folder / "models"
        self._state = folder / "state"
        self.models.mkdir(parents=True, exist_ok=True)
        self._state.mkdir(parents=True)
        ports = Ports.free("127.0.0.1")
        found = installation.find()
        launch = Launch(found, self.models, backends, self._state, "127.0.0.1", ports, extra, variant=variant, key="")
        self.server = Server(launch, StateFolder(self._state))
        self.client = triton.InferenceServerClient(f"127.0.0.1:{ports.grpc}")

    def wait(self, seconds: float = 30) -> bool:
        """Wait until the server answers; False when it ends instead."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.server.is_alive():
            try:
                if self.client.is_server_live(client_timeout=1):
                    return True
            except InferenceServerException:
                time.sleep(0.05)
        return False

    def stop(self) -> None:
        """End the server, which may hang, and remove its remains."""
        self.client.close()
        self.server.stubs()  # remembers their shared memory
        self.server.clear()
        self.server._process.stdout.close()  # its supervisor ends with it, and need not

    def log(self) -> str:
        """Return the server's whole output."""
        return (self._state / "triton.log").read_text()

    def load(self, model: str, seconds: float = 30) -> str:
        """Load a model; return what the server says against it, empty when it loads."""
        begun = len(self.log())
        try:
            self.client.load_model(model, client_timeout=seconds)
        except InferenceServerException as error:
            text = str(error)
            if "failed to poll" not in text:
                return text
            time.sleep(0.2)  # the reason is in the log only, which a thread copies
            return text + self.log()[begun:]
        return ""

    def unload(self, names: list[str]) -> None:
        """Unload models, and wait until they are gone."""
        for name in reversed(names):
            with suppress(InferenceServerException):  # one that was never loaded
                self.client.unload_model(name, unload_dependents=True)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            index = self.client.get_model_repository_index().models
            if not any(model.state in ("READY", "UNLOADING", "LOADING") for model in index):
                return
            time.sleep(0.05)
        pytest.fail(f"{names} were not unloaded")

    def infer(self, model: str, seconds: float = 10, **options: Any) -> Any:
        """Send one request; `array` is the first input's, `name` its name, the rest tritonclient's options."""
        array = options.pop("array", np.array([[1, 2]], np.float32))
        kind = "BYTES" if array.dtype == np.object_ else triton_type(array)
        given = triton.InferInput(options.pop("name", "X"), list(array.shape), kind)
        given.set_data_from_numpy(array)
        return self.client.infer(model, [given], client_timeout=seconds, **options)

    def many(
        self, model: str, count: int, seconds: float = 10, apart: float = 0.02, **options: Any
    ) -> list[tuple[str, float]]:
        """Send requests, each `apart` seconds after the one before.

        Returns:
            For each what was said against it, empty when it was answered, and after how many seconds.

        """

        def send(index: int) -> tuple[str, float]:
            time.sleep(apart * index)
            begun = time.monotonic()
            try:
                self.infer(model, seconds, **options)
                said = ""
            except InferenceServerException as error:
                said = str(error)
            return said, time.monotonic() - begun

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(send, range(count)))

    def calls(self, model: str) -> list[dict[str, Any]]:
        """Return the requests of an echoing model, one entry for each batch."""
        path = self.models / model / "calls.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def triton_type(array: Any) -> str:
    """Return Triton's name for an array's type."""
    return {"float32": "FP32", "int64": "INT64"}[str(array.dtype)]


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's backends, and `echo`."""
    folder = tmp_path_factory.mktemp("backends")
    for source in (*(ROOT / "backends").iterdir(), ROOT / "tests" / "standins" / "backends" / "echo"):
        (folder / source.name).symlink_to(source)
    return folder


@pytest.fixture
def make_proof(tmp_path: Path, backends: Path) -> Iterator[Callable[..., Proof]]:
    """Return a function that starts a server for one test, which may break it."""
    started: list[Proof] = []

    def make(case: Case | None = None, variant: str | None = None, extra: tuple[str, ...] = ()) -> Proof:
        folder = tmp_path / f"proof{len(started)}"
        if case is not None:
            case.write(folder / "models")
        started.append(Proof(folder, backends, variant, extra))
        return started[-1]

    yield make
    for proof in started:
        proof.stop()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, backends: Path) -> Iterator[Proof]:
    """The server that most proofs share; each unloads its own models."""
    proof = Proof(tmp_path_factory.mktemp("shared"), backends, extra=("--cache-config=local,size=1048576",))
    assert proof.wait(), proof.log()
    yield proof
    proof.stop()


@pytest.fixture(scope="session")
def case_of() -> Callable[[str], Case]:
    """Return the function that reads a case, for tests that start their own server."""
    return read_case


@pytest.fixture(scope="session")
def make_case() -> Callable[[str], Case]:
    """Return the function that reads a case from a text."""
    return parse_case


@pytest.fixture
def prove(shared: Proof) -> Iterator[Callable[[str], Proof]]:
    """Return a function that writes a case into the shared server's repository and loads it; both are undone."""
    used: list[Case] = []

    def load(name: str) -> Proof:
        case = read_case(name)
        used.append(case)
        case.write(shared.models)
        for model in case.models:
            assert shared.load(model) == ""
        return shared

    yield load
    for case in used:
        clear(shared, case)


@pytest.fixture
def refusal(shared: Proof, make_proof: Callable[..., Proof]) -> Iterator[Callable[[Case], str]]:
    """Return a function that loads a case's model and returns the server's error."""
    used: list[Case] = []

    def load(case: Case) -> str:
        assert case.refuses is not None
        if case.variant is None:
            used.append(case)
            case.write(shared.models)
            return shared.load(case.refuses[0])
        proof = make_proof(case, variant=case.variant)
        assert proof.wait(), proof.log()
        return proof.load(case.refuses[0])

    yield load
    for case in used:
        clear(shared, case)


def clear(proof: Proof, case: Case) -> None:
    """Unload and remove a case's models."""
    proof.unload(case.models)
    for name in case.files:
        shutil.rmtree(proof.models / name.split("/")[0], ignore_errors=True)


@pytest.fixture
def hundred() -> Callable[[Path, int], None]:
    """Return a function that writes 100 models: the bundled classifier 25 times, with more weights in each network."""

    def make(folder: Path, weights: int) -> None:
        networks: dict[str, Path] = {}
        for number in range(25):
            for source in sorted((ROOT / "models").glob("efficientnet_lite0*")):
                target = folder / source.name.replace("efficientnet_lite0", f"model{number}")
                shutil.copytree(source, target)
                for path in target.glob("**/*.pbtxt"):
                    text = path.read_text().replace("efficientnet_lite0", f"model{number}")
                    path.write_text(text.replace(DEFAULT, DEFAULT.replace("default", "other")))
                for path in target.glob("1/model.onnx"):
                    if source.name in networks:
                        path.unlink()
                        path.hardlink_to(networks[source.name])
                    else:
                        _enlarge(path, weights)
                        networks[source.name] = path

    return make


def _enlarge(path: Path, size: int) -> None:
    """Add unused weights to a network."""
    model = onnx.load(path)
    tensor = helper.make_tensor("more", TensorProto.UINT8, [size], bytes(size), raw=True)
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
