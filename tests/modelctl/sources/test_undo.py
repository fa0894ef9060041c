"""`modelctl add` that fails late, or is stopped: at every step the repository and the server are left as they were."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sample_files import contents
from test_refusals import HOW, net

from modelctl.sources.addition import STEPS
from modelctl.sources.draft import Order

BROKEN = """
class TritonPythonModel:
    def initialize(self, args):
        {body}
"""


@pytest.fixture
def backend(stack: Any) -> Any:
    """Return a function that puts another backend in the place of the last step's; the real one comes back."""
    place = stack.state / "backends" / "classification_postprocess"
    real = place.readlink()

    def put(body: str) -> None:
        place.unlink()
        place.mkdir()
        (place / "model.py").write_text(BROKEN.format(body=body))

    yield put
    if not place.is_symlink():  # a server that took the place of a dead one has the real one
        shutil.rmtree(place)
        place.symlink_to(real)


def test_a_load_that_fails_is_undone(
    command: Any, served: Any, stack: Any, tmp_path: Path, backend: Callable[[str], None]
) -> None:
    """Triton's own reason is told; the steps that did load are unloaded, and the folders are gone."""
    backend("raise ValueError('the last step is broken')")
    before = contents(stack.models)
    result = command.run("add", *net(tmp_path, *HOW))
    assert result.code == 1
    assert "at the step 'load': Triton does not load net" in result.sentence
    assert "the last step is broken" in result.sentence
    assert "Traceback" not in result.err
    assert contents(stack.models) == before
    time.sleep(1)
    assert "READY" not in {state for name, state in served.index().items() if name.startswith("net")}


def test_an_answer_that_is_another_is_undone(
    command: Any, served: Any, stack: Any, tmp_path: Path, backend: Callable[[str], None]
) -> None:
    """A step that loads and fails on every request is noticed when the model is asked."""
    backend("pass\n    def execute(self, requests):\n        raise ValueError('this step never works')")
    before = contents(stack.models)
    result = command.run("add", *net(tmp_path, *HOW))
    assert result.code == 1
    assert "at the step 'ask': The served model fails" in result.sentence
    assert contents(stack.models) == before
    time.sleep(1)
    assert "READY" not in {state for name, state in served.index().items() if name.startswith("net")}


def test_a_triton_that_dies_while_it_loads_is_told(
    command: Any, served: Any, stack: Any, tmp_path: Path, backend: Callable[[str], None]
) -> None:
    """Nothing of the model is left for the server that takes its place, and the other models are served again."""
    backend("__import__('os').kill(__import__('os').getppid(), 9)")
    before = contents(stack.models)
    result = command.run("add", *net(tmp_path, *HOW))
    assert result.code == 1
    assert "at the step 'load': Triton ended while it loaded net (" in result.sentence
    assert "Traceback" not in result.err
    assert contents(stack.models) == before
    stack.wait_ready()
    assert not [name for name in served.index() if name.startswith("net")]


def start(stack: Any, *arguments: str) -> subprocess.Popen[str]:
    """Start `modelctl add` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "modelctl", "add", *arguments, "--models", str(stack.models)],
        env={**os.environ, **stack.environment()},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize(
    ("step", "number"),
    [
        *((step, signal.SIGINT) for step in ("read", "compare", "judge", "load", "ask")),
        ("load", signal.SIGTERM),
    ],
)
def test_ctrl_c_leaves_nothing(served: Any, stack: Any, tmp_path: Path, step: str, number: signal.Signals) -> None:
    """At any step, while Triton still loads it too: no file, no served model, one sentence."""
    before = contents(stack.models)
    process = start(stack, *net(tmp_path, *HOW, "--name", "halted"))
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith(f"[{STEPS.index(step) + 1}/{len(STEPS)}]"):
            process.send_signal(number)
            if step == "load":  # an impatient user
                time.sleep(0.05)
                process.send_signal(number)
            break
    said += process.communicate(timeout=60)[1]
    # The second signal may come when the sentence has been said, and end the process itself.
    assert process.returncode in ((1, -number) if step == "load" else (1,)), said
    assert "modelctl: halted was not added, at the step '" in said
    assert said.endswith("': stopped. The repository is as before.\n")
    assert "Traceback" not in said
    assert contents(stack.models) == before
    assert not list(stack.folder.glob(".modelctl-*"))
    time.sleep(1.5)
    assert "READY" not in {state for name, state in served.index().items() if name.startswith("halted")}


def test_ctrl_c_that_python_drops_is_heeded(command: Any, stack: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """What is raised while an object is finalized, as gRPC's are, is dropped: the next step ends the command."""

    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    went_on: list[bool] = []

    def last(*_: Any) -> None:
        Finalized()
        went_on.append(True)

    before = contents(stack.models)
    monkeypatch.setattr("modelctl.reference.served.check", last)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # the command changes it
    result = command.run("add", *net(tmp_path, *HOW))
    assert went_on
    assert result.code == 1
    assert result.sentence.endswith("at the step 'ask': stopped. The repository is as before.")
    assert contents(stack.models) == before


def test_somebody_else_is_faster(command: Any, stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the model's name that appears meanwhile is left alone."""
    other = stack.models / "net_network"

    def late(order: Order) -> Any:
        other.mkdir()
        (other / "theirs").write_text("kept")
        return draft(order)

    from modelctl.sources import find

    draft = find.draft
    monkeypatch.setattr(find, "draft", late)
    result = command.run("add", *net(tmp_path, *HOW))
    assert result.code == 1
    assert "was made by another process meanwhile: give another --name" in result.sentence
    assert [path.name for path in stack.models.glob("net*")] == ["net_network"]
    assert (other / "theirs").read_text() == "kept"
