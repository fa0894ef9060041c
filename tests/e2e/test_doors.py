"""Attacks on every listening port: no code gets in, and only the control key allows loading models."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from app.telemetry.metrics import Metrics
from app.triton import control as of_gateway
from app.triton.client import TritonClient
from modelctl.embedded import control, installation
from modelctl.embedded.ports import Ports
from modelctl.embedded.server import Launch, Server
from modelctl.embedded.state import StateFolder
from modelctl.embedded.triton import Triton

ROOT = Path(__file__).resolve().parent.parent.parent
REGION = Path("/dev/shm/test_doors_region")
CODE = """
import triton_python_backend_utils as pb_utils
open({mark!r}, "w").write("this code came from outside")

class TritonPythonModel:
    def execute(self, requests):
        return []
"""
CONFIG = {
    "name": "evil",
    "backend": "python",
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [1]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1]}],
}


@pytest.fixture(scope="module")
def house(make_stack: Callable[..., Any]) -> Any:
    """Return a stack without a model, with a gateway before it."""
    made = make_stack(("simple_net",), test_models=False)
    made.start_triton()
    made.start_gateway()
    with closing(made.control()) as triton:
        deadline = time.monotonic() + 40
        while not triton.is_live():
            assert time.monotonic() < deadline, (made.folder / "triton.out").read_text()
            time.sleep(0.1)
    while len(listening(made)) < 3:  # metrics come a moment after gRPC
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return made


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Return a file that the attacker's code would write."""
    REGION.write_bytes(bytes(64))
    yield tmp_path / "mark"
    REGION.unlink()


def code(mark: Path) -> bytes:
    """Return a model whose code writes a file."""
    return CODE.format(mark=str(mark)).encode()


def listening(stack: Any) -> set[int]:
    """Return the TCP ports on which the stack's processes listen."""
    family = [
        process
        for one in (stack.triton, stack.gateway)
        for process in (psutil.Process(one.pid), *psutil.Process(one.pid).children(recursive=True))
    ]
    connections = [connection for process in family for connection in process.net_connections("tcp")]
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


def post(port: int, path: str, body: object) -> int:
    """Send a request that a foreign page can send without a preflight; return the status, 0 for none."""
    headers = {"Content-Type": "text/plain", "Origin": "http://evil.example", "Host": "rebind.evil.example"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("POST", path, json.dumps(body), headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0


def test_a_page_in_a_browser_loads_no_model(house: Any, mark: Path) -> None:
    """No port accepts a simple cross-origin POST; there are three, and none is Triton's HTTP."""
    ports = listening(house)
    assert ports == {house.port, house.grpc, house.metrics}
    parameters = {"config": json.dumps(CONFIG), "file:1/model.py": base64.b64encode(code(mark)).decode()}
    attacks = {
        "/v2/repository/models/evil/load": {"parameters": parameters},
        "/v2/repository/models/simple_net/unload": {},
        "/v2/repository/index": {},
        "/v2/logging": {"log_file": str(mark)},
        "/v2/trace/setting": {"trace_file": str(mark), "trace_level": ["TIMESTAMPS"], "trace_rate": "1"},
        "/v2/systemsharedmemory/region/evil/register": {"key": f"/{REGION.name}", "offset": 0, "byte_size": 64},
    }
    for port in ports:
        for path, body in attacks.items():
            assert post(port, path, body) in (0, 403, 404, 405), (port, path)
    time.sleep(0.5)
    assert not mark.exists()
    with closing(house.control()) as triton:
        assert {name: one.state for name, one in triton.states().items()} == {"simple_net": "READY"}


def controls(mark: Path) -> dict[str, Any]:
    """Return a request for each method of the control protocols, harmful if possible."""
    text, raw = service_pb2.ModelRepositoryParameter, service_pb2.ModelRepositoryParameter
    evil = {"config": text(string_param=json.dumps(CONFIG)), "file:1/model.py": raw(bytes_param=code(mark))}
    trace = {"trace_file": service_pb2.TraceSettingRequest.SettingValue(value=[str(mark)])}
    log = {"log_file": service_pb2.LogSettingsRequest.SettingValue(string_param=str(mark))}
    return {
        "RepositoryIndex": service_pb2.RepositoryIndexRequest(),
        "RepositoryModelLoad": service_pb2.RepositoryModelLoadRequest(model_name="evil", parameters=evil),
        "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest(model_name="simple_net"),
        "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(
            name="evil", key=f"/{REGION.name}", byte_size=64
        ),
        "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
        "SystemSharedMemoryUnregister": service_pb2.SystemSharedMemoryUnregisterRequest(name="evil"),
        "CudaSharedMemoryRegister": service_pb2.CudaSharedMemoryRegisterRequest(name="evil", byte_size=64),
        "CudaSharedMemoryStatus": service_pb2.CudaSharedMemoryStatusRequest(),
        "CudaSharedMemoryUnregister": service_pb2.CudaSharedMemoryUnregisterRequest(name="evil"),
        "TraceSetting": service_pb2.TraceSettingRequest(settings=trace),
        "LogSettings": service_pb2.LogSettingsRequest(settings=log),
    }


OPEN = {
    "ServerLive": service_pb2.ServerLiveRequest(),
    "ServerReady": service_pb2.ServerReadyRequest(),
    "ServerMetadata": service_pb2.ServerMetadataRequest(),
    "ModelReady": service_pb2.ModelReadyRequest(name="simple_net"),
    "ModelMetadata": service_pb2.ModelMetadataRequest(name="simple_net"),
    "ModelConfig": service_pb2.ModelConfigRequest(name="simple_net"),
    "ModelStatistics": service_pb2.ModelStatisticsRequest(name="simple_net"),
}


def call(stack: Any, method: str, request: Any, key: str = "") -> str:
    """Call Triton; return its error, empty for success."""
    metadata = ((control.METADATA, key),) if key else None
    with grpc.insecure_channel(f"127.0.0.1:{stack.grpc}", [("grpc.enable_http_proxy", 0)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            getattr(stub, method)(request, timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            return error.details() or str(error.code())
    return ""


def test_control_needs_the_key(house: Any, mark: Path) -> None:
    """Without the key, or with a wrong one, no control method works; inference and health stay open."""
    for method, request in controls(mark).items():
        for key in ("", control.new()):
            assert call(house, method, request, key).startswith(control.RESTRICTED), method
    time.sleep(0.5)
    assert not mark.exists()
    assert {method: call(house, method, request) for method, request in OPEN.items()} == dict.fromkeys(OPEN, "")
    assert house.infer("simple_net", INPUT__0=np.zeros((1, 2), np.float32))
    assert set(OPEN) | set(controls(mark)) | {"ModelInfer", "ModelStreamInfer"} == {
        method.name for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    }


def test_the_key_opens_control(house: Any, mark: Path) -> None:
    """With the key all methods work that were refused above, so the refusals are due to the key."""
    key = house.key.read_text()
    requests = controls(mark)
    requests["RepositoryModelUnload"] = service_pb2.RepositoryModelUnloadRequest(model_name="evil")
    requests["TraceSetting"] = service_pb2.TraceSettingRequest()
    requests["LogSettings"] = service_pb2.LogSettingsRequest()
    said = {method: call(house, method, request, key) for method, request in requests.items()}
    assert {method for method, text in said.items() if text} <= {"CudaSharedMemoryRegister", "CudaSharedMemoryStatus"}
    assert not [text for text in said.values() if control.RESTRICTED in text]
    assert mark.read_text() == "this code came from outside"


def test_a_gateway_without_the_key_says_so(house: Any, make_stack: Callable[..., Any], tmp_path: Path) -> None:
    """Triton counts as up, the gateway as not ready; it names the variable, and serves once the file is there."""
    file = tmp_path / "key"
    settings = {"GATEWAY_TRITON_URLS": house.address, control.VARIABLE: str(file)}
    gateway = make_stack((), settings, test_models=False)
    gateway.start_gateway()

    def reason_is(part: str, seconds: float = 60) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if part in str(httpx.get(f"{gateway.url}/readyz", trust_env=False).json()["reason"]):
                    return True
            time.sleep(0.1)
        return False

    assert reason_is(control.VARIABLE)
    page = httpx.get(f"{gateway.url}/metrics", trust_env=False).text
    assert f'gateway_triton_up{{server="127.0.0.1:{house.grpc}"}} 1.0' in page
    problem = httpx.post(f"{gateway.url}/v1/sentiment", json={"text": "a"}, trust_env=False).json()
    assert (problem["code"], control.VARIABLE in problem["detail"]) == ("backend_unavailable", True)
    file.write_text(house.key.read_text())
    assert reason_is("no default model")  # which it knows from the list of models
    gateway.stop()


def test_modelctl_without_the_key_says_so(house: Any, tmp_path: Path) -> None:
    """`list` and `load` end with one sentence that names the variable; with the key they work."""
    for command in (["list"], ["load", "simple_net"], ["unload", "simple_net"]):
        line = [sys.executable, "-m", "modelctl", *command, "--models", str(house.models)]
        environment = {**house.environment(), control.VARIABLE: str(tmp_path / "none")}
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 1
        assert control.VARIABLE in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    for command in (["load", "simple_net"], ["list"], ["ready"]):
        models = [] if command == ["ready"] else ["--models", str(house.models)]
        line = [sys.executable, "-m", "modelctl", *command, *models]
        done = subprocess.run(line, cwd=ROOT, env=house.environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_triton_that_asks_for_no_key_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway and modelctl read a foreign Triton although the key's file is missing."""
    monkeypatch.setenv(control.VARIABLE, str(tmp_path / "none"))
    for name in ("models", "backends"):
        (tmp_path / name).mkdir()
    ports = Ports.free("127.0.0.1")
    state = StateFolder(tmp_path / "state")
    launch = Launch(
        *(installation.find(), tmp_path / "models", tmp_path / "backends", state.path, "127.0.0.1", ports, ()), key=""
    )
    server = Server(launch, state)
    target = f"127.0.0.1:{ports.grpc}"

    async def index() -> list[Any]:
        client = TritonClient(target, Metrics(), str(tmp_path / "none"))
        client.open()
        try:
            return await client.repository_index()
        finally:
            await client.close()

    try:
        with closing(Triton(target)) as triton:
            deadline = time.monotonic() + 30
            while not triton.is_live():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert triton.states() == {}
        assert asyncio.run(index()) == []
    finally:
        server.stop()
        server._process.stdout.close()  # type: ignore[union-attr]
        state.close()


def test_gateway_and_supervisor_mean_the_same_key() -> None:
    """They share no code, so both define the header's name and the form of a key."""
    assert of_gateway.HEADER == control.METADATA
    assert of_gateway.KEY == control.KEY
