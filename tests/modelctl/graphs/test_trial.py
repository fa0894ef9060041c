"""A network from outside runs in a process of its own first: it harms nobody there, and what it gives is seen."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from networks import node, value
from onnx import TensorProto, helper

from modelctl.errors import CommandError
from modelctl.graphs import batch, trial

FLOATS = np.random.default_rng(0).random((2, 3), np.float32)
X = value("x", TensorProto.FLOAT, ["N", 3])


def small(path: Path, nodes: list[Any], outputs: list[Any], constants: dict[str, Any] | None = None) -> Path:
    """Write a network of one input `x` FP32 [N, 3]."""
    return networks.save(path, nodes, [X], outputs, constants or {})


def y(*shape: int | str, kind: int = TensorProto.FLOAT) -> Any:
    """Return an output `y`."""
    return value("y", kind, shape)


def endless(path: Path) -> Path:
    """Write a network that adds 1 for longer than anyone waits."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["sum", "sum"], ["next"])],
        "body",
        [value("at", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("sum", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, None)],
    )
    nodes = [node("Loop", ["times", "yes", "x"], ["y"], body=body)]
    return small(path, nodes, [y("N", 3)], {"times": np.int64(2**62), "yes": np.bool_(True)})


def hungry(path: Path) -> Path:
    """Write a network that asks for 256 GB at once."""
    nodes = [node("ConstantOfShape", ["size"], ["much"]), node("ReduceMax", ["much"], ["most"], keepdims=0)]
    nodes.append(node("Add", ["x", "most"], ["y"]))
    return small(path, nodes, [y("N", 3)], {"size": np.array([2**36], np.int64)})


def test_what_comes_out_is_what_the_network_gives(tmp_path: Path) -> None:
    """Every run is answered by itself, with the shapes that came out; one that fails does not hide the others."""
    path = small(tmp_path / "a.onnx", [node("MatMul", ["x", "w"], ["y"])], [y("N", 4)], {"w": networks.weights(3, 4)})
    ran = trial.run(path, [{"x": FLOATS[:1]}, {"x": FLOATS[:, :2]}, {"x": FLOATS}])
    assert ran.shapes == {"y": (None, 4)}
    np.testing.assert_allclose(ran.made(2)["y"], FLOATS @ networks.weights(3, 4), rtol=1e-5)
    assert ran.made(0)["y"].shape == (1, 4)
    with pytest.raises(CommandError, match="The network cannot be run: "):
        ran.made(1)
    assert [one.name for one in tmp_path.iterdir()] == ["a.onnx"], "the trial leaves nothing"


def test_an_endless_network_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time is limited, not the time on the clock, which a busy machine stretches."""
    monkeypatch.setattr(trial, "CPU_SECONDS", 2)
    with pytest.raises(CommandError, match=r"did not end within 2 seconds of CPU time .*: export a smaller network"):
        trial.run(endless(tmp_path / "a.onnx"), [{"x": FLOATS[:1]}])


def test_a_network_that_waits_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that uses no CPU time ends by the clock."""
    path = small(tmp_path / "a.onnx", [node("Abs", ["x"], ["y"])], [y("N", 3)])
    monkeypatch.setattr(trial, "WALL_SECONDS", 1)
    monkeypatch.setattr(trial, "COMMAND", (sys.executable, "-c", "import time; time.sleep(600)"))
    began = time.monotonic()
    with pytest.raises(CommandError, match=r"did not end within"):
        trial.run(path, [{"x": FLOATS[:1]}])
    assert time.monotonic() - began < 300


def test_memory_is_limited(tmp_path: Path) -> None:
    """The sentence says so, whether ONNX Runtime asks for the memory when it folds constants or when it runs."""
    with pytest.raises(CommandError, match=r"needs more memory .* than a trial may take"):
        trial.run(hungry(tmp_path / "a.onnx"), [{"x": FLOATS[:1]}]).made(0)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (signal.SIGSEGV, r"ONNX Runtime crashes on the network \(SIGSEGV\), .*: Triton was not touched"),
        (signal.SIGABRT, r"ONNX Runtime crashes on the network \(SIGABRT\)"),
        (signal.SIGKILL, "needs more memory"),
    ],
)
def test_a_crash_ends_the_child_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, sentence: str
) -> None:
    """The signal is named; the kernel's own way of getting memory back is called by its name."""
    path = small(tmp_path / "a.onnx", [node("Abs", ["x"], ["y"])], [y("N", 3)])
    script = f"import os; os.kill(os.getpid(), {int(number)})"
    monkeypatch.setattr(trial, "COMMAND", (sys.executable, "-c", script))
    with pytest.raises(CommandError, match=sentence):
        trial.run(path, [{"x": FLOATS[:1]}])


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("raise RuntimeError('no disk')", "The network could not be tried: RuntimeError: no disk"),
        ("raise SystemExit(3)", "The network could not be tried: exit code 3"),
    ],
)
def test_a_child_that_fails_itself_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, sentence: str
) -> None:
    """Its last line is the reason, or its exit code where it said nothing."""
    path = small(tmp_path / "a.onnx", [node("Abs", ["x"], ["y"])], [y("N", 3)])
    monkeypatch.setattr(trial, "COMMAND", (sys.executable, "-c", script))
    with pytest.raises(CommandError) as caught:
        trial.run(path, [{"x": FLOATS[:1]}])
    assert str(caught.value) == sentence


def test_a_refused_network_says_why(tmp_path: Path) -> None:
    """What ONNX Runtime says is passed on."""
    path = small(tmp_path / "a.onnx", [node("Abs", ["x"], ["y"])], [y("N", 3)])
    model = onnx.load(path)
    model.graph.node[0].op_type = "Mystery"
    onnx.save(model, path)
    with pytest.raises(CommandError, match=r"ONNX Runtime refuses the network: .*Mystery"):
        trial.run(path, [{"x": FLOATS[:1]}])


def test_ctrl_c_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What interrupts the command leaves no process behind."""
    path = small(tmp_path / "a.onnx", [node("Abs", ["x"], ["y"])], [y("N", 3)])
    pid = tmp_path / "pid"
    script = (
        f"import os, signal, time; open({str(pid)!r}, 'w').write(str(os.getpid()));"
        "os.kill(os.getppid(), signal.SIGINT); time.sleep(600)"
    )
    monkeypatch.setattr(trial, "COMMAND", (sys.executable, "-c", script))
    with pytest.raises(KeyboardInterrupt):
        trial.run(path, [{"x": FLOATS[:1]}])
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def tried(path: Path) -> trial.Trial:
    """Run a network of `x` for its batch."""
    return trial.run(path, batch.feeds({"x": FLOATS}))


def test_a_batch_is_seen(tmp_path: Path) -> None:
    """Two items together get what each gets alone."""
    ran = tried(small(tmp_path / "a.onnx", [node("Abs", ["x"], ["y"])], [y("N", 3)]))
    assert (batch.fits(ran), batch.whole(ran), batch.is_steady(ran)) == (True, {}, True)


def test_an_answer_that_depends_on_its_neighbours_is_no_batch(tmp_path: Path) -> None:
    """The scale of the whole batch is in each answer: items are served one by one."""
    nodes = [node("ReduceMax", ["x"], ["most"], keepdims=0), node("Div", ["x", "most"], ["y"])]
    ran = tried(small(tmp_path / "a.onnx", nodes, [y("N", 3)]))
    assert (batch.fits(ran), batch.whole(ran)) == (False, {})


@pytest.mark.parametrize(
    ("shape", "sizes"), [([-1, 1], [3, 1]), ([-1], [3]), ([3, -1], [3, 1])], ids=["rows", "flat", "turned"]
)
def test_an_axis_that_is_not_the_batch_is_seen(tmp_path: Path, shape: list[int], sizes: list[int]) -> None:
    """Of the rows of one item none is lost, since the output is not cut by items."""
    nodes = [node("Reshape", ["x", "shape"], ["y"])]
    ran = tried(small(tmp_path / "a.onnx", nodes, [y(*["K"] * len(shape))], {"shape": np.array(shape, np.int64)}))
    assert (batch.fits(ran), batch.whole(ran)) == (False, {"y": sizes})


def test_rows_that_the_content_makes_are_seen(tmp_path: Path) -> None:
    """NonZero gives as many rows as it finds."""
    nodes = [node("NonZero", ["x"], ["found"]), node("Transpose", ["found"], ["y"], perm=[1, 0])]
    ran = tried(small(tmp_path / "a.onnx", nodes, [y("K", 2, kind=TensorProto.INT64)]))
    assert batch.whole(ran) == {"y": [3, 2]}


def test_chance_is_seen(tmp_path: Path) -> None:
    """A network that draws its answers gives another one for the same item."""
    ran = tried(small(tmp_path / "a.onnx", [node("RandomNormalLike", ["x"], ["y"])], [y("N", 3)]))
    assert not batch.is_steady(ran)
