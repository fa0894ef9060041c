"""`modelctl serve` and `modelctl up` as commands: processes, output, refusals, and a clean end."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from broken import until
from living import is_alive, words

ROOT = Path(__file__).resolve().parents[3]
SHARED_MEMORY = Path("/dev/shm")


def wait_live(stack: Any, seconds: float = 30) -> None:
    """Wait until Triton has loaded its models."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        with closing(stack.control()) as triton:
            if triton.is_live():
                return
        time.sleep(0.1)
    pytest.fail((stack.folder / "triton.out").read_text())


def state_of(stack: Any, model: str) -> str:
    """Return a model's state in Triton."""
    with closing(stack.control()) as triton:
        return str(triton.state(model))


def command_line(stack: Any) -> list[str]:
    """Return the command line of the running tritonserver."""
    children = psutil.Process(stack.triton.pid).children(recursive=True)
    return next(child for child in children if child.name() == "tritonserver").cmdline()


def output(stack: Any) -> str:
    """Return what the supervisor printed."""
    return str((stack.folder / "triton.out").read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_stopping_leaves_nothing_behind(make_stack: Callable[..., Any], number: signal.Signals) -> None:
    """SIGTERM and SIGHUP end the server and every stub within 10 s, and remove their shared memory."""
    stack = make_stack(("efficientnet_lite0",), test_models=False)
    stack.start_triton()
    wait_live(stack)
    family = psutil.Process(stack.triton.pid).children(recursive=True)
    commands = [words(process) for process in family]
    regions = [
        SHARED_MEMORY / line[2].lstrip("/") for line in commands if line[2:] and "python_backend_stub" in line[0]
    ]
    assert len(regions) == 4  # of the network there are two instances
    assert all(region.exists() for region in regions)
    begun = time.monotonic()
    stack.triton.send_signal(number)
    assert stack.triton.wait(15) == 0
    assert time.monotonic() - begun < 10
    assert not [process for process in family if is_alive(process)]
    assert not [region for region in regions if region.exists()]


def test_the_next_supervisor_cleans_up_after_a_killed_one(make_stack: Callable[..., Any]) -> None:
    """After kill -9, a new one on the same state folder starts and removes all remains."""
    stack = make_stack(("efficientnet_lite0",), test_models=False)
    stack.start_triton()
    wait_live(stack)
    time.sleep(1)  # the supervisor has seen the stubs and their memory
    family = psutil.Process(stack.triton.pid).children(recursive=True)
    commands = [words(process) for process in family]
    regions = [
        SHARED_MEMORY / line[2].lstrip("/") for line in commands if line[2:] and "python_backend_stub" in line[0]
    ]
    stack.triton.kill()
    stack.triton.wait()
    stack.start_triton()
    wait_live(stack)
    assert not [process for process in family if is_alive(process)]
    assert not [region for region in regions if region.exists()]
    stack.stop()


def test_a_second_supervisor_is_refused(make_stack: Callable[..., Any]) -> None:
    """A state folder or port in use, or a read-only state folder: one sentence, exit code 1."""
    stack = make_stack((), test_models=False)
    stack.start_triton()
    wait_live(stack)
    options = ["--models", str(stack.models), "--backends", str(stack.folder / "backends")]

    def refused(*more: str) -> str:
        command = [sys.executable, "-m", "modelctl", "serve", *options, *more]
        done = subprocess.run(command, cwd=ROOT, env=stack.environment(), capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]

    assert "Another modelctl serve uses" in refused("--state", str(stack.state))
    assert "TRITON_GRPC_PORT" in refused("--state", str(stack.folder / "other"))
    assert "There is no model nobody" in refused("--state", str(stack.folder / "other"), "--model", "nobody")
    assert "cannot be written (Not a directory)" in refused("--state", str(stack.folder / "triton.out" / "below"))
    stack.stop()


@pytest.mark.parametrize("default", [True, False])
def test_a_broken_model_ends_the_start_only_when_it_is_a_default(make_stack: Callable[..., Any], default: bool) -> None:
    """A default model that does not load ends the start with one sentence; another warns, and the rest is served."""
    stack = make_stack(("efficientnet_lite0", "simple_net"), test_models=False)
    (stack.models / "efficientnet_lite0_network" / "1" / "model.onnx").write_bytes(b"broken")
    if not default:
        config = stack.models / "efficientnet_lite0" / "config.pbtxt"
        config.write_text(config.read_text().replace('"default"', '"no_default"'))
    stack.start_triton()
    if default:
        assert stack.triton.wait(60) == 1
        assert output(stack).splitlines()[-1].startswith("modelctl: Model efficientnet_lite0 did not load")
    else:
        wait_live(stack)
        warning = "Warning: Model efficientnet_lite0 did not load: efficientnet_lite0_network"
        until(lambda: warning in output(stack), 20)
        assert state_of(stack, "simple_net") == "READY"
    sentence = next(line for line in output(stack).splitlines() if "Model efficientnet_lite0 did not load" in line)
    assert "Protobuf parsing failed" in sentence
    assert str(stack.models) not in sentence
    assert ".py" not in sentence
    stack.stop()


def test_named_models_only(make_stack: Callable[..., Any]) -> None:
    """`--model` loads them and their steps; more options reach tritonserver; it listens on loopback only."""
    stack = make_stack(
        ("efficientnet_lite0", "simple_net"), serve_options=("--model", "simple_net", "--", "--log-info=1")
    )
    stack.start_triton()
    wait_live(stack)
    assert state_of(stack, "simple_net") == "READY"
    assert state_of(stack, "efficientnet_lite0") != "READY"
    line = command_line(stack)
    assert "--log-info=1" in line
    assert {"--exit-on-error=false", "--strict-readiness=false", "--model-control-mode=explicit"} <= set(line)
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in psutil.Process(stack.triton.pid).children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}
    stack.stop()


@pytest.fixture
def gpu(tmp_path: Path) -> Path:
    """Return a folder with an nvidia-smi that shows a GPU of compute capability 9.0."""
    script = tmp_path / "nvidia-smi"
    script.write_text('#!/bin/sh\ncase "$1" in *compute_cap*) echo 9.0 ;; *) echo Pretended GPU ;; esac\n')
    script.chmod(0o755)
    return tmp_path


def plan(version: Path, **changes: str) -> None:
    """Write a stand-in for a plan, with the record of its sources."""
    (version / "model.plan").write_bytes(b"a stand-in")
    built = {
        "onnx_sha256": hashlib.sha256((version / "model.onnx").read_bytes()).hexdigest(),
        "compute_capability": "9.0",
        "tensorrt_version": "",
    }
    (version / "model.plan.json").write_text(json.dumps({**built, **changes}))


@pytest.mark.parametrize(
    ("case", "flag", "reason"),
    [
        ("all there", True, "all 2 plans match this machine"),
        ("one missing", False, "its plan is missing"),
        ("another machine", False, "another compute capability"),
        ("another network", False, "another onnx sha256"),
        ("no GPU", False, "there is no GPU"),
    ],
)
def test_plans_are_served_only_when_all_match(
    make_stack: Callable[..., Any], gpu: Path, case: str, flag: bool, reason: str
) -> None:
    """The running server's command line has `--model-config-name=tensorrt` only when every plan fits the machine."""
    settings = {} if case == "no GPU" else {"PATH": f"{gpu}:{os.environ['PATH']}"}
    names = ("efficientnet_lite0", "lite_detector", "simple_net")
    stack = make_stack(names, settings, test_models=False)
    for model in names[:2]:
        plan(stack.models / f"{model}_network" / "1")
        # Stand-ins cannot be loaded: the models are no defaults here, so that the server goes on without them.
        config = stack.models / model / "config.pbtxt"
        config.write_text(config.read_text().replace('"default"', '"no_default"'))
    version = stack.models / "lite_detector_network" / "1"
    if case == "one missing":
        (version / "model.plan").unlink()
    elif case == "another machine":
        plan(version, compute_capability="8.6")
    elif case == "another network":
        plan(version, onnx_sha256="0")
    stack.start_triton()
    wait_live(stack)
    assert ("--model-config-name=tensorrt" in command_line(stack)) is flag
    assert f"Networks run as {'TensorRT plans' if flag else 'ONNX'}" in output(stack)
    assert reason in output(stack)
    assert state_of(stack, "lite_detector") == ("UNAVAILABLE" if flag else "READY") or flag
    stack.stop()


def test_up_shows_what_it_does_and_stops_cleanly(make_stack: Callable[..., Any]) -> None:
    """It prints progress, ready, and a curl line with its real answer per task; SIGINT ends all within 10 s."""
    stack = make_stack(test_models=False)
    command = [sys.executable, "-m", "modelctl", "up", "--models", str(stack.models), "--state", str(stack.state)]
    out = stack.folder / "up.out"
    with out.open("wb") as file:
        up = subprocess.Popen(command, cwd=ROOT, env=stack.environment(), stdout=file, stderr=file)
    begun = time.monotonic()
    while f"Gateway ready: {stack.url}" not in out.read_text():
        assert up.poll() is None, out.read_text()
        assert time.monotonic() - begun < 60, out.read_text()  # the machine may be busy
        time.sleep(0.1)
    time.sleep(0.5)
    text = out.read_text()
    assert "Models: 13 of 13 loaded" in text
    assert "Canaries: 3 of 3 answer as expected" in text
    for task in ("classify", "detect", "sentiment"):
        assert f"{stack.url}/v1/{task}" in text
    assert '"label": "espresso"' in text
    family = psutil.Process(up.pid).children(recursive=True)
    begun = time.monotonic()
    up.send_signal(signal.SIGINT)
    assert up.wait(15) == 0
    assert time.monotonic() - begun < 10
    assert not [process for process in family if is_alive(process)]


def test_up_revives_a_killed_gateway(make_stack: Callable[..., Any]) -> None:
    """Its workers end with it, so that the next one has their port; it removes their metrics folder too."""
    stack = make_stack(("minilm_sentiment",), {"GATEWAY_WORKERS": "3"}, test_models=False)
    temporary = stack.folder / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "modelctl", "up", "--models", str(stack.models), "--state", str(stack.state)]
    environment = {**stack.environment(), "TMPDIR": str(temporary)}
    with (stack.folder / "up.out").open("wb") as out:
        up = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 60
        while b"Gateway ready" not in (stack.folder / "up.out").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        gateway = next(process for process in psutil.Process(up.pid).children() if words(process)[-1:] == ["app"])
        workers = gateway.children()
        assert len(workers) >= 3
        gateway.kill()
        assert not psutil.wait_procs(workers, 10)[1]
        assert stack.wait_ready(30) < 30
        assert (stack.folder / "up.out").read_text().count("The gateway ended") == 1
        assert len(list(temporary.glob("gateway-*"))) == 1
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(15) == 0
    assert not list(temporary.glob("gateway-*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_ends_a_start(make_stack: Callable[..., Any], number: signal.Signals) -> None:
    """At any moment of the start of `up`, it ends all started processes, without a traceback."""
    stacks = [make_stack(("simple_net",), test_models=False) for _ in range(8)]

    def stopped_after(stack: Any, seconds: float) -> None:
        command = [sys.executable, "-m", "modelctl", "up", "--models", str(stack.models), "--state", str(stack.state)]
        out = stack.folder / "up.out"
        with out.open("wb") as file:
            up = subprocess.Popen(command, cwd=ROOT, env=stack.environment(), stdout=file, stderr=file)
        time.sleep(seconds)
        family = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(number)
        try:
            assert up.wait(10) in (0, -number, 128 + number)
        finally:
            up.kill()
            up.wait()
        assert not psutil.wait_procs(family, 2)[1]
        # Python itself says where Ctrl-C has met it until it comes to our first line.
        assert "Traceback" not in out.read_text() or (number == signal.SIGINT and seconds < 1)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(stopped_after, stacks, (0.5 + 0.4 * number for number in range(8))))


def test_up_serves_models_that_are_no_defaults(make_stack: Callable[..., Any]) -> None:
    """`--model simple_net` has no task to show, and is ready nevertheless."""
    stack = make_stack(test_models=False)
    options = ["--models", str(stack.models), "--state", str(stack.state), "--model", "simple_net"]
    out = stack.folder / "up.out"
    with out.open("wb") as file:
        command = [sys.executable, "-m", "modelctl", "up", *options]
        up = subprocess.Popen(command, cwd=ROOT, env=stack.environment(), stdout=file, stderr=file)
    begun = time.monotonic()
    while "Gateway ready" not in out.read_text() and time.monotonic() - begun < 20:
        time.sleep(0.1)
    up.send_signal(signal.SIGTERM)
    assert up.wait(15) == 0
    assert "Models: 1 of 1 loaded" in out.read_text()
    assert "Gateway ready" in out.read_text()
    assert "/v1/classify" not in out.read_text()


def test_a_taken_gateway_port_is_one_sentence(make_stack: Callable[..., Any]) -> None:
    """It names the port and the variable, and nothing has started."""
    stack = make_stack((), test_models=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", stack.port))
        command = [sys.executable, "-m", "modelctl", "up", "--state", str(stack.state)]
        done = subprocess.run(command, cwd=ROOT, env=stack.environment(), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert f"Port {stack.port} is taken" in done.stderr
    assert "GATEWAY_PORT" in done.stderr
    assert len(done.stderr.splitlines()) == 1
