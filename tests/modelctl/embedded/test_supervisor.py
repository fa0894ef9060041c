"""The supervisor on small models that break in many ways: dead, hanging, added and removed."""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from living import is_alive, words
from tritonclient.utils import InferenceServerException

from modelctl.embedded import installation
from modelctl.embedded.ports import Ports
from modelctl.embedded.server import Launch, on_stop
from modelctl.embedded.supervisor import Supervisor
from modelctl.errors import CommandError

ROOT = Path(__file__).resolve().parents[3]
SHARED_MEMORY = Path("/dev/shm")
STEP = """
name: "{name}" backend: "python"
input {{ name: "x" data_type: TYPE_FP32 dims: 1 }}
output {{ name: "y" data_type: TYPE_FP32 dims: 1 }}
instance_group {{ kind: KIND_CPU }}
"""
ENSEMBLE = """
name: "{name}" platform: "ensemble"
input {{ name: "x" data_type: TYPE_FP32 dims: 1 }}
output {{ name: "y" data_type: TYPE_FP32 dims: 1 }}
ensemble_scheduling {{ step {{
  model_name: "{name}_step" model_version: -1
  input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "y" }}
}} }}
"""
CODE = """
import os, time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        if os.path.exists(os.path.join(args["model_repository"], "slow")):
            time.sleep(60)

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]) for x in inputs]
"""


def add_model(models: Path, name: str, *, default: bool = False) -> None:
    """Write an ensemble of one Python step that answers what it is given."""
    for folder, config in ((models / name, ENSEMBLE), (models / f"{name}_step", STEP)):
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(config.format(name=folder.name))
    (models / f"{name}_step" / "1" / "model.py").write_text(CODE)
    if default:
        with (models / name / "config.pbtxt").open("a") as config:
            config.write('parameters { key: "default" value { string_value: "true" } }\n')


@pytest.fixture
def toy(make_stack: Callable[..., Any]) -> Iterator[Any]:
    """Return a stack with the model `echo`, not started."""
    stack = make_stack((), test_models=False)
    add_model(stack.models, "echo")
    yield stack
    stack.stop()


def answers(stack: Any, model: str = "echo") -> bool:
    """Return whether a model answers."""
    try:
        return bool(stack.infer(model, 2, x=np.array([2.5], np.float32))["y"].tolist() == [2.5])
    except InferenceServerException:
        return False


def wait(condition: Callable[[], bool], seconds: float = 20) -> float:
    """Wait until something holds; return after how many seconds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        time.sleep(0.1)
    return time.monotonic() - begun


def start(stack: Any) -> None:
    """Start Triton, and wait until its model answers and the supervisor watches."""
    stack.start_triton()
    wait(lambda: answers(stack), 40)
    time.sleep(1)


def tritonserver(process: int) -> psutil.Process:
    """Return the server below a process."""
    return next(one for one in psutil.Process(process).children(recursive=True) if one.name() == "tritonserver")


def stub(process: int, model: str = "echo_step") -> psutil.Process | None:
    """Return a living process of a Python step below a process."""
    for one in psutil.Process(process).children(recursive=True):
        if f"/{model}/" in " ".join(words(one)[1:2]):
            return one
    return None


def kill_stub(process: int, model: str = "echo_step") -> None:
    """Kill the process of a Python step."""
    victim = stub(process, model)
    assert victim is not None
    victim.kill()


def output(stack: Any) -> str:
    """Return what the supervisor printed."""
    return str((stack.folder / "triton.out").read_text())


class Up:
    """A running `modelctl up`, in its own terminal, and all that it must not leave behind."""

    def __init__(self, stack: Any) -> None:
        self._stack = stack
        self.terminal, slave = os.openpty()
        command = [sys.executable, "-m", "modelctl", "up", "--models", str(stack.models), "--state", str(stack.state)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=stack.environment(), preexec_fn=lambda: os.login_tty(slave)
        )
        os.close(slave)
        self.text = ""
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for("Gateway ready")
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        commands = [words(process) for process in self.family]
        self.regions = [
            SHARED_MEMORY / line[2].lstrip("/") for line in commands if line[2:] and "backend_stub" in line[0]
        ]
        assert self.regions

    def _read(self) -> None:
        while not self._closing.is_set():
            if select.select([self.terminal], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.terminal, 4096).decode()
                except OSError:  # nobody has it open any more
                    return

    def close_terminal(self) -> None:
        """Close the terminal's window, so that the kernel sends SIGHUP."""
        self._closing.set()
        self._reader.join()
        os.close(self.terminal)

    def wait_for(self, text: str) -> None:
        """Wait until it has printed something."""
        wait(lambda: text in self.text or self.process.poll() is not None, 40)
        assert text in self.text

    def serve(self) -> psutil.Process:
        """Return the supervisor's process."""
        return next(process for process in self.family if "serve" in words(process))

    def must_end_cleanly(self) -> None:
        """Assert that it ends within 10 s, and that no process and no shared memory is left."""
        begun = time.monotonic()
        self.process.wait(20)
        assert time.monotonic() - begun < 10
        assert not [one for one in self.family if is_alive(one)]
        assert not [region for region in self.regions if region.exists()]


def test_a_start_after_the_first_is_tried_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If Triton dies at the end of its first start and finds no room for the second, supervision goes on."""
    outcomes: list[Callable[[], float]] = []

    def fail() -> float:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def stop() -> float:
        supervisor.stop()
        return 0

    monkeypatch.setattr("modelctl.embedded.supervisor.FIRST_BACKOFF_S", 0)
    monkeypatch.setattr(Supervisor, "_run_server", lambda *_, **__: outcomes.pop(0)())
    paths = (tmp_path / "models", ROOT / "backends", tmp_path / "state")
    launch = Launch(installation.find(), *paths, "127.0.0.1", Ports(1, 2), ())
    outcomes += [fail, lambda: 0, fail, stop]
    with pytest.raises(CommandError, match="No space left"):
        Supervisor(launch, []).run()
    supervisor = Supervisor(launch, [])
    supervisor.run()
    assert not outcomes


@pytest.mark.parametrize(("aborts", "serves"), [(1, True), (3, False)])
def test_a_first_start_that_aborts_is_tried_again(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], aborts: int, serves: bool
) -> None:
    """Triton 24.10 sometimes aborts when a step fails while others load. The third abort ends the start."""
    real = installation.find()
    count, binary = toy.folder / "starts", toy.folder / "tritonserver"
    binary.write_text(
        f'#!/bin/sh\necho >> {count}\n[ $(wc -l < {count}) -gt {aborts} ] || kill -ABRT $$\nexec {real.binary} "$@"\n'
    )
    binary.chmod(0o755)
    launch = Launch(
        replace(real, binary=binary), toy.models, ROOT / "backends", toy.state, "127.0.0.1", Ports.free("127.0.0.1"), ()
    )
    supervisor = Supervisor(launch, [])
    monkeypatch.setattr(Supervisor, "_watch", lambda *_: supervisor.stop())
    if serves:
        supervisor.run()
    else:
        with pytest.raises(CommandError, match="Triton ended while it started"):
            supervisor.run()
    assert len(count.read_text()) == min(aborts + 1, 3)
    assert capfd.readouterr().err.count("Triton aborted while it started; it is started again.") == min(aborts, 2)


def test_closing_the_terminal_stops_everything(toy: Any) -> None:
    """When its terminal is closed, `up` ends within 10 s, and leaves no process and no shared memory behind."""
    up = Up(toy)
    up.close_terminal()
    up.must_end_cleanly()
    assert up.process.returncode == 0


def test_nohup_is_respected() -> None:
    """A process that was started to ignore hang-ups keeps ignoring them."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    told: list[str] = []
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        on_stop(lambda: told.append("stop"))
        os.kill(os.getpid(), signal.SIGHUP)
        assert not told
        os.kill(os.getpid(), signal.SIGTERM)
        wait(lambda: told == ["stop"])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_handler_takes_no_lock() -> None:
    """`Event.set` needs a lock that an interrupted `Event.wait` may hold: such a handler would hang."""
    script = """
import os, signal, threading, time
from modelctl.embedded.server import on_stop
lock, told = threading.Lock(), threading.Event()
def stop():
    with lock:
        told.set()
on_stop(stop)
with lock:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
assert told.wait(10)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=30)


def test_stopping_ends_a_repair_that_hangs(toy: Any) -> None:
    """A stop while a slow model is loading again ends `up` within 10 s and leaves nothing behind."""
    up = Up(toy)
    (toy.models / "echo_step" / "slow").touch()
    time.sleep(1)
    kill_stub(up.process.pid)
    up.wait_for("A process of echo_step has died")
    wait(lambda: stub(up.process.pid) is not None)
    up.family += psutil.Process(up.process.pid).children(recursive=True)
    up.process.send_signal(signal.SIGINT)
    up.must_end_cleanly()
    assert up.process.returncode == 0
    assert "could not be loaded again" not in up.text


def test_a_hung_supervisor_is_cleaned_up_after(toy: Any) -> None:
    """`up` kills a supervisor that does not react, and removes its processes and shared memory."""
    up = Up(toy)
    up.serve().suspend()
    up.process.send_signal(signal.SIGTERM)
    up.must_end_cleanly()


def test_a_hung_triton_is_restarted(toy: Any) -> None:
    """A living server that does not answer is killed, and serves again within 25 s."""
    start(toy)
    tritonserver(toy.triton.pid).suspend()
    assert wait(lambda: answers(toy), 40) < 25
    assert "Triton has not answered for 10 s; it is killed." in output(toy)


def test_a_step_that_dies_before_it_was_seen_comes_back(toy: Any) -> None:
    """A step whose only process dies before the supervisor's first look serves again."""
    toy.start_triton()
    wait(lambda: "Models: 0 of 2 loaded" in output(toy))
    supervisor = psutil.Process(toy.triton.pid)
    supervisor.suspend()
    try:
        wait(lambda: answers(toy))
        kill_stub(toy.triton.pid)
    finally:
        supervisor.resume()
    wait(lambda: answers(toy))
    assert "A process of echo_step has died" in output(toy)


def test_a_folder_that_vanishes_does_not_hurt(toy: Any) -> None:
    """If the ensemble of a dead step is gone from the repository, the step comes back and supervision goes on."""
    start(toy)
    shutil.rmtree(toy.models / "echo")
    for _ in range(2):
        kill_stub(toy.triton.pid)
        wait(lambda: answers(toy, "echo_step"))
        time.sleep(1)
    assert toy.triton.poll() is None
    assert "Traceback" not in output(toy)
    assert "Triton ended" not in output(toy)


def test_a_model_is_ready_when_one_version_is(toy: Any) -> None:
    """One served version is enough; two served versions need twice the processes."""
    start(toy)
    step = toy.models / "echo_step"
    shutil.copytree(step / "1", step / "2")
    triton = toy.control()
    config = (step / "config.pbtxt").read_text()

    def serve(policy: str) -> None:
        (step / "config.pbtxt").write_text(f"{config} version_policy: {{ {policy} }}")
        triton.load("echo_step")

    serve("specific { versions: [2] }")
    serve("specific { versions: [1] }")
    assert triton.states()["echo_step"].state == "READY"
    assert triton.states()["echo_step"].versions == 1
    serve("all { }")
    assert triton.states()["echo_step"].versions == 2
    time.sleep(1.5)
    kill_stub(toy.triton.pid)
    wait(lambda: "echo_step serves again" in output(toy))
    triton.close()


@pytest.mark.parametrize("named", [False, True])
def test_models_added_while_running_stay(make_stack: Callable[..., Any], named: bool) -> None:
    """An added model is repaired with its ensemble, and loaded after a crash, unless --model named others."""
    stack = make_stack((), test_models=False, serve_options=("--model", "echo") if named else ())
    add_model(stack.models, "echo", default=True)
    start(stack)
    add_model(stack.models, "added")
    with closing(stack.control()) as triton:
        triton.load("added")
    time.sleep(1.5)
    kill_stub(stack.triton.pid, "added_step")
    wait(lambda: "added_step serves again" in output(stack))
    assert answers(stack, "added")
    # One folder that cannot be read, and a default model that lost its step.
    (stack.models / "unreadable" / "config.pbtxt").mkdir(parents=True)
    shutil.rmtree(stack.models / "echo_step")
    server = tritonserver(stack.triton.pid)
    server.kill()
    wait(lambda: "Warning: Model echo did not load: echo_step: its folder is missing" in output(stack))
    assert answers(stack, "added") is not named
    assert stack.triton.poll() is None
    stack.stop()
