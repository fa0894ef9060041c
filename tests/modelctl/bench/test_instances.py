"""`modelctl bench instances`: the measured copy, the figures and their files, and a clean end."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from living import is_alive, words
from tritonclient.grpc import model_config_pb2, service_pb2

from modelctl.bench import chart, copy, instances, instances_report, memory, options, quiet, results, sample
from modelctl.bench.chart import Panel, Series
from modelctl.bench.copy import Setting
from modelctl.bench.load import Cores, Grpc, Load
from modelctl.bench.memory import Step
from modelctl.bench.order import Order
from modelctl.bench.results import Machine, Spread
from modelctl.bench.trial import Trial
from modelctl.embedded import processes
from modelctl.errors import CommandError
from modelctl.models.repository import Model, Repository, read_config

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "models"
SHARED_MEMORY = Path("/dev/shm")
SVG = "{http://www.w3.org/2000/svg}"


def model(name: str) -> Model:
    """Return a bundled model."""
    return Repository(MODELS).models[name]


# The copy


def test_every_group_gets_the_count() -> None:
    """Each instance group gets the count and keeps its kind; the given configuration does not change."""
    config = model_config_pb2.ModelConfig(name="m", backend="onnxruntime")
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_GPU, gpus=[0])
    config.instance_group.add(count=2, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    made = copy.vary(config, Setting(3, 4))
    assert [(group.count, group.kind) for group in made.instance_group] == [(3, 1), (3, 2)]
    assert made.parameters["intra_op_thread_count"].string_value == "4"
    assert [group.count for group in config.instance_group] == [1, 2]
    assert not config.parameters


def test_a_model_without_a_group_gets_one() -> None:
    """Where no group is configured, one is added, and the threads stay as they are."""
    made = copy.vary(model_config_pb2.ModelConfig(name="m", backend="python"), Setting(2))
    assert [group.count for group in made.instance_group] == [2]
    assert not made.parameters


def test_threads_are_for_onnx_runtime() -> None:
    """Threads of a step that ONNX Runtime does not run are refused."""
    with pytest.raises(CommandError, match="omit --threads"):
        copy.vary(model_config_pb2.ModelConfig(name="m", backend="image_preprocess"), Setting(1, 1))


def test_the_counted_model_is_the_network_or_the_step_asked_for() -> None:
    """An ensemble counts its network or the named step, a tensor model itself; other names are refused."""
    assert copy.varied(model("efficientnet_lite0"), None) == "efficientnet_lite0_network"
    assert copy.varied(model("efficientnet_lite0"), "preprocess") == "efficientnet_lite0_preprocess"
    assert copy.varied(model("simple_net"), None) == "simple_net"
    with pytest.raises(CommandError, match="omit --step"):
        copy.varied(model("simple_net"), "network")
    with pytest.raises(CommandError, match="has no step other_network; its steps are: a"):
        copy.varied(Model("other", False, ("a",)), None)


def test_only_the_count_of_the_step_changes(tmp_path: Path) -> None:
    """The copy has the model and its steps; one configuration and its variants differ, and all data are links."""
    copy.write(MODELS, model("efficientnet_lite0"), "efficientnet_lite0_network", Setting(3, 1), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"efficientnet_lite0{part}" for part in ("", "_preprocess", "_network", "_postprocess")
    }
    for path in sorted(MODELS.glob("efficientnet_lite0*/**/*.pbtxt")):
        made, given = read_config(tmp_path / path.relative_to(MODELS)), read_config(path)
        if "_network" in str(path):
            assert made.instance_group[0].count == 3
            made.instance_group[0].count = given.instance_group[0].count
        if path.name == "config.pbtxt" and "_network" in str(path):
            assert made.parameters["intra_op_thread_count"].string_value == "1"
            given.parameters["intra_op_thread_count"].string_value = "1"
        assert made == given
    assert (tmp_path / "efficientnet_lite0_network" / "1").resolve() == MODELS / "efficientnet_lite0_network" / "1"
    assert not (tmp_path / "efficientnet_lite0_network" / "configs").is_symlink()


@pytest.mark.parametrize("text", ["", "0", "1,1", "65", "1,x", "-1"])
def test_wrong_counts_are_refused(text: str) -> None:
    """Counts are different whole numbers from 1 to 64."""
    with pytest.raises(CommandError, match="give different numbers from 1 to 64"):
        instances.numbers(text)


# Requests


def test_an_ensemble_is_sent_real_inputs() -> None:
    """Pictures and texts travel as Triton's bytes: a length, and the item as it is."""
    for name, given in (("efficientnet_lite0", "image"), ("minilm_sentiment", "text")):
        made = [service_pb2.ModelInferRequest.FromString(one) for one in sample.requests(MODELS, model(name))]
        assert len(made) >= 3
        for request in made:
            assert [(one.name, one.datatype, list(one.shape)) for one in request.inputs] == [(given, "BYTES", [1, 1])]
            (content,) = request.raw_input_contents
            assert int.from_bytes(content[:4], "little") == len(content) - 4
    texts = (ROOT / "modelctl" / "samples" / "texts.txt").read_bytes().splitlines()
    assert content[4:] in texts


def test_a_tensor_model_is_sent_numbers_of_its_shape() -> None:
    """Random numbers have the configuration's type and shape, and are not all the same."""
    made = [service_pb2.ModelInferRequest.FromString(one) for one in sample.requests(MODELS, model("simple_net"))]
    assert [(one.name, one.datatype, list(one.shape)) for one in made[0].inputs] == [("INPUT__0", "FP32", [1, 2])]
    values = [np.frombuffer(request.raw_input_contents[0], np.float32) for request in made]
    assert {value.shape for value in values} == {(2,)}
    assert len({tuple(value) for value in values}) == len(values)


def test_inputs_that_cannot_be_made_up_are_refused() -> None:
    """The sentence for a model with byte inputs and without model.yaml says how to go on."""
    with pytest.raises(CommandError, match="No data can be made up for the input image of efficientnet_lite0_pre"):
        sample.requests(MODELS, Model("efficientnet_lite0_preprocess", False, ()))


# Figures


def test_ratios_are_taken_within_rounds() -> None:
    """A round that is half as fast changes no ratio; the spread of a setting shows."""
    rounds = {
        "1": [{"throughput": 100.0, "memory": 0.0}, {"throughput": 50.0, "memory": 0.0}],
        "2": [{"throughput": 120.0, "memory": 5.0}, {"throughput": 60.0, "memory": 5.0}],
        "4": [{"throughput": 100.0, "memory": 5.0}, {"throughput": 60.0, "memory": 5.0}],
    }
    found = results.ratios(rounds, ["throughput", "memory"])
    assert found == {
        "throughput 2/1": Spread(pytest.approx(1.2), pytest.approx(1.2), pytest.approx(1.2)),
        "throughput 4/1": Spread(pytest.approx(1.1), 1.0, pytest.approx(1.2)),
    }
    assert results.spreads(rounds)["1"]["throughput"] == Spread(75.0, 50.0, 100.0)


def test_a_table_reads_as_text_and_as_markdown() -> None:
    """Columns are aligned, numbers to the right."""
    assert results.table(["n", "MB"], [["1", "5"], ["10", "120"]]).splitlines() == [
        "| n  |  MB |",
        "|----|----:|",
        "| 1  |   5 |",
        "| 10 | 120 |",
    ]


def test_figures_have_three_digits() -> None:
    """A figure shows three digits, and no more decimals than that takes."""
    assert [results.figure(value) for value in (5004.2, 99.62, 1.546, 0.2117)] == ["5004", "99.6", "1.55", "0.212"]


def test_ticks_are_round_and_reach_the_greatest() -> None:
    """An axis has few, round marks from 0 on, and ends at or above the greatest value."""
    assert chart.ticks(83) == [0, 20, 40, 60, 80, 100]
    assert chart.ticks(100) == [0, 20, 40, 60, 80, 100]
    assert chart.ticks(0) == [0, 1]
    for value in (0.003, 1, 7.2, 99.9, 1234, 5e6):
        marks = chart.ticks(value)
        assert marks[-1] >= value
        assert len(marks) <= 7


def test_a_chart_is_an_svg_with_units_and_bars_in_proportion() -> None:
    """A bar of twice the value is twice as high; axes say their unit; names are escaped; dark pages have colours."""
    values = [Spread(10, 9, 11), Spread(20, 20, 20)]
    panels = [
        Panel("latency, ms", "instances", ["1", "2"], [Series("p50", values), Series("p99", values)]),
        Panel("memory, MB", "instances", ["1", "2"], [Series("a<b", values)]),
    ]
    text = chart.draw("A & B", panels)
    tree = ET.fromstring(text)
    words = [element.text for element in tree.iter(f"{SVG}text")]
    assert words.count("instances") == 2
    assert {"A & B", "latency, ms", "memory, MB", "p50", "p99"} <= set(words)
    heights = [float(bar.get("height", 0)) for bar in tree.iter(f"{SVG}rect") if bar.find(f"{SVG}title") is not None]
    assert len(heights) == 6
    assert heights[1::2] == [pytest.approx(heights[0]), pytest.approx(heights[2]), pytest.approx(heights[5])]
    assert heights[5] == pytest.approx(2 * heights[4], abs=0.11)
    assert "prefers-color-scheme: dark" in text


def trial(throughput: float, used: float, count: int, gpu: float | None = None) -> Trial:
    """Return a trial with made-up figures."""
    return Trial(
        throughput,
        8e3 / throughput,
        16e3 / throughput,
        Cores(1.5, 0.1, 0.2),
        20,
        40,
        used,
        gpu,
        {"m": Step(count, 45 * count)},
        "ONNX",
    )


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """Return an order of two settings in two rounds."""
    settings = (Setting(1), Setting(3))
    return Order(MODELS, ROOT / "backends", tmp_path, model("simple_net"), "simple_net", settings, Load(8, 2), 2)


def test_the_report_has_ratios_and_a_table(order: Order, tmp_path: Path) -> None:
    """JSON has flat ratios with their ranges; the table says the same; three files are written."""
    trials = {
        Setting(1): [trial(100, 50, 1), trial(80, 52, 1)],
        Setting(3): [trial(110, 150, 3), trial(100, 152, 3)],
    }
    machine = Machine(2, "x86_64", 25, "", "3.11.7")
    report = instances_report.of(order, trials, machine)
    found = json.loads(report.as_json())
    assert found["ratios"]["throughput 3/1"] == pytest.approx(1.175)
    assert found["ranges"]["throughput 3/1"] == [1.1, 1.25]
    assert set(found["ratios"]) == {f"{metric} 3/1" for metric in ("throughput", "p50", "p99", "cpu", "memory")}
    assert found["medians"]["1"]["throughput"] == 90
    assert found["processes"]["3"]["m"] == {"processes": 3, "mb": 135}
    assert found["command"] == "modelctl bench instances simple_net --counts 1,3 --callers 8 --seconds 2 --rounds 2"
    last = report.text.split("\n\n")[0].splitlines()[-1]
    assert [cell.strip() for cell in last.strip("|").split("|")] == [
        "3",
        "105 (1.18; 1.10 to 1.25)",
        "76.4 (0.85)",
        "153 (0.85)",
        "14.3 (0.85)",
        "151 (2.96)",
        "50",
    ]
    assert "GPU" not in report.text
    paths = report.write(tmp_path / "new")
    assert [path.name for path in paths] == [f"instances-simple_net{ending}" for ending in (".md", ".json", ".svg")]
    assert "2-core x86_64 machine, 25 GB, no GPU" in paths[0].read_text()


def test_a_gpu_has_a_column(order: Order) -> None:
    """If Triton reports a GPU's memory, the table shows it."""
    trials = {setting: [trial(100, 50, 1, gpu=300.0)] * 2 for setting in order.settings}
    report = instances_report.of(order, trials, Machine(2, "x86_64", 25, "NVIDIA A10", "3.11.7"))
    assert "GPU memory, MB" in report.text.splitlines()[0]
    assert "NVIDIA A10" in report.page()


def test_quick_is_one_short_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """--quick measures four counts in under a minute: one round of 2 s each."""
    monkeypatch.setattr(options, "on_stop", lambda _: None)
    arguments = type("Arguments", (), {"quick": True, "out": None, "measure": staticmethod(lambda *_: 7)})()
    assert options.run(arguments) == 7
    assert (arguments.rounds, arguments.seconds, arguments.patience) == (1, 2.0, 0.0)
    assert arguments.out != options.RESULTS, "what is quoted in docs is not written over by a glance"
    arguments.out.rmdir()


# Memory and load


def test_memory_is_the_share_of_a_process() -> None:
    """A process that takes 50 MB more has a share that is 50 MB greater; one that has ended has none."""
    before = memory.pss(os.getpid())
    with mmap.mmap(-1, 50_000_000) as block:  # not from the allocator, which may have as much at hand
        block.write(bytes(len(block)))
        assert memory.pss(os.getpid()) - before == pytest.approx(len(block) / 1e6, abs=5)
    assert memory.pss(2**30) == 0


def test_waiting_for_a_quiet_machine_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is waited for, up to a limit; a quiet one is not; a stop ends the wait."""
    seconds = iter(range(100))
    monkeypatch.setattr(quiet, "LOOK_S", 0.01)
    monkeypatch.setattr(processes, "machine_seconds", lambda: float(next(seconds)))
    assert not quiet.wait(0.05, threading.Event())
    stopped = threading.Event()
    stopped.set()
    assert not quiet.wait(60, stopped)
    monkeypatch.setattr(processes, "machine_seconds", lambda: 5.0)
    assert quiet.wait(60, threading.Event())


def test_busy_cores_exclude_the_load_generator() -> None:
    """Its CPU time does not count as other processes' work; that of a busy neighbour does."""
    before = Cores(1, 2, 3)
    assert Cores(3, 3, 3.5).since(before, 2) == Cores(1, 0.5, 0.25)
    begun, clock = Cores.now(os.getpgrp() + 2**30), time.perf_counter()
    while time.perf_counter() - clock < 0.3:
        pass
    found = Cores.now(os.getpgrp() + 2**30).since(begun, time.perf_counter() - clock)
    assert found.server == 0
    assert found.client > 0.2
    assert found.others < (os.cpu_count() or 1)


def test_gpu_memory_is_the_sum_of_all_gpus() -> None:
    """Each GPU's used bytes count, and no other metric; without them there is no GPU."""
    page = (
        "# TYPE nv_gpu_memory_used_bytes gauge\n"
        'nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 8000000000\n'
        'nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 400000000\n'
        'nv_gpu_memory_used_bytes{gpu_uuid="GPU-2"} 1.5e+08\n'
    )
    assert memory.gpu(page) == 550
    assert memory.gpu("nv_cpu_utilization 0.5\n") is None


def test_a_server_that_fails_ends_the_measurement() -> None:
    """A failed call is not a result."""
    with pytest.raises(CommandError, match="Triton failed under load"):
        Load(2, 0.2, 0).run(Grpc("127.0.0.1:1", [b""]), os.getpgrp(), threading.Event())


# The command


class Watched:
    """A running command, with all processes and shared memory seen to be its own."""

    def __init__(self, tmp_path: Path, *options: str) -> None:
        self.out = tmp_path / "out"
        words = [sys.executable, "-m", "modelctl", "bench", "instances", "simple_net", "--counts", "1,2", "--json"]
        words += [
            "--rounds",
            "1",
            "--patience",
            "0",
            "--out",
            str(self.out),
            "--state",
            str(tmp_path / "state"),
            *options,
        ]
        self.process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.family: dict[int, psutil.Process] = {}
        self.regions: set[Path] = set()

    def look(self) -> None:
        """Remember its processes, and their shared memory."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self.process.pid).children(recursive=True):
                line = words(one)
                self.family[one.pid] = one
                if line[2:] and "backend_stub" in line[0]:
                    self.regions.add(SHARED_MEMORY / line[2].lstrip("/"))

    def end(self, seconds: float) -> tuple[str, str]:
        """Wait until it has ended; return what it printed."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self.look()
            time.sleep(0.1)
        out, err = self.process.communicate(timeout=1)
        return out, err

    def left(self) -> list[Any]:
        """Return its remaining processes and shared memory."""
        alive = [one for one in self.family.values() if is_alive(one)]
        return [*alive, *(region for region in self.regions if region.exists())]


@contextmanager
def watched(tmp_path: Path, *options: str) -> Iterator[Watched]:
    """Run the command; end it if the test has not."""
    one = Watched(tmp_path, *options)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(15)


@pytest.mark.server
def test_it_measures_a_real_server(tmp_path: Path) -> None:
    """A run on real Triton prints one object, writes its files, and leaves nothing running."""
    with watched(tmp_path, "--seconds", "0.5", "--callers", "2") as run:
        out, err = run.end(60)
    assert run.process.returncode == 0, err
    found = json.loads(out)
    assert set(found["ratios"]) == {f"{metric} 2/1" for metric in ("throughput", "p50", "p99", "cpu", "memory")}
    assert all(ratio > 0 for ratio in found["ratios"].values())
    assert [found["processes"][count]["simple_net"]["processes"] for count in ("1", "2")] == [1, 2]
    for measured in found["medians"].values():
        assert measured["throughput"] > 1
        assert 0 < measured["p50"] <= measured["p99"]
        assert measured["memory"] > 10
    assert found["machine"]["cores"] >= 1
    assert found["networks"] == "ONNX"
    assert sorted(path.name for path in run.out.iterdir()) == [
        f"instances-simple_net-callers2{ending}" for ending in (".json", ".md", ".svg")
    ]
    assert json.loads((run.out / "instances-simple_net-callers2.json").read_text()) == found
    assert len(run.family) >= 5  # two servers with one stub and two
    assert len(run.regions) >= 3
    assert not run.left()
    assert not (tmp_path / "state" / "models").exists()


@pytest.mark.server
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C under load ends it within 10 s, with nothing left running, and nothing written."""
    with watched(tmp_path, "--seconds", "60") as run:
        deadline = time.monotonic() + 30
        while not run.regions and run.process.poll() is None and time.monotonic() < deadline:
            run.look()
            time.sleep(0.1)
        time.sleep(1)
        run.look()
        begun = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        _, err = run.end(15)
    assert time.monotonic() - begun < 10
    assert run.process.returncode == 130
    assert err.endswith("Stopped: nothing is left running, and nothing was written.\n")
    assert "Traceback" not in err
    assert run.regions
    assert not run.left()
    assert not run.out.exists()
    assert not (tmp_path / "state" / "models").exists()
