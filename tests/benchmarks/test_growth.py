"""`python -m benchmarks growth`: the light models, the requests and connections, the ratios, and one tiny run."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from PIL import Image

from benchmarks import commandline, light
from benchmarks.growth import measure, report
from benchmarks.growth.order import AXES, BASE, Growth, Served, Setting
from benchmarks.load import connections
from benchmarks.load.connections import Connections, RefusedError
from modelctl.bench.load import Load
from modelctl.bench.results import Machine
from modelctl.errors import CommandError
from modelctl.lint.linter import lint

ROOT = Path(__file__).resolve().parent.parent.parent
OPTIONS = ("connections", "tensor_models", "ensembles", "batch", "image_kb")


def order(tmp_path: Path, **given: Any) -> Growth:
    """Return the parsed command line; options that are not given have only their base value."""
    values = {name: given.get(name, (1,) if name == "ensembles" else (10,)) for name in OPTIONS}
    values["batch"] = given.get("batch", (1,))
    return Growth.of(
        SimpleNamespace(state=tmp_path, seconds=1.0, rounds=2, callers=8, patience=0.0, quick=False, **values)  # type: ignore[arg-type]
    )


# The models and the requests


def test_the_light_models_are_without_fault(tmp_path: Path) -> None:
    """The repository has the requested models, and lint finds nothing."""
    light.write(tmp_path, ensembles=2, tensor_models=3)
    models, findings = lint(tmp_path / "models")
    assert not findings
    ensembles = ("light", "light_2", "light_image")
    assert set(models) == {
        *ensembles,
        *(f"{name}_step" for name in ensembles),
        *(f"tensors_{number}" for number in (1, 2, 3)),
    }


@pytest.mark.parametrize("size", [1_000, 10_000, 65_540, 1_000_000, 10_000_000])
def test_a_picture_has_its_size_and_can_be_decoded(size: int) -> None:
    """It is a real JPEG of exactly this many bytes, even if few are left for the last comment."""
    made = measure.picture(size)
    assert size - 3 <= len(made) <= size
    assert Image.open(io.BytesIO(made)).convert("RGB").size == (64, 64)


def test_a_request_is_as_its_setting_says() -> None:
    """Texts go to the single or batch route, pictures to their model; Content-Length is right."""
    for setting, path, kind in (
        (BASE, "/v1/sentiment", "application/json"),
        (Setting(batch=8), "/v1/sentiment/batch", "application/json"),
        (Setting(image_kb=10), "/v1/classify?model=light_image", "image/jpeg"),
    ):
        head, _, body = measure.request(setting).partition(b"\r\n\r\n")
        assert head.startswith(f"POST {path} HTTP/1.1\r\n".encode())
        assert f"Content-Type: {kind}".encode() in head
        assert f"Content-Length: {len(body)}".encode() in head
        if setting.batch:
            assert len(json.loads(body)["texts"]) == 8


# Connections


class Page(BaseHTTPRequestHandler):
    """A server that records the connection of each request, and may hang up after its answer."""

    protocol_version = "HTTP/1.1"
    status, hang_up = 200, False
    seen: list[tuple[str, int]]

    def do_POST(self) -> None:
        """Answer a request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).seen.append(self.client_address)
        self.send_response(self.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.hang_up

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(**attributes: object) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """Serve; yield the port, and the list of connections of the requests."""
    seen: list[tuple[str, int]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Page,), {"seen": seen, **attributes}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


REQUEST = connections.post("/", "text/plain", b"hello")


def test_every_connection_is_used_in_turn() -> None:
    """With three calls at once, all 20 connections are open, and they take turns."""
    with served() as (port, seen):
        sent = Connections(port, REQUEST, 20)
        answered = Load(3, 0.5, 0.1).run(sent, os.getpgrp(), threading.Event(), beside=2**30)
    assert len(set(seen)) == 20
    assert len(set(seen[:18])) == 18, "none comes twice before the others, of which two may be under way"
    assert sent.reopened == 0
    assert 0 < len(answered.latencies) <= len(seen)
    assert answered.cores.server > 0, "this process is the server here"
    assert answered.cores.beside == 0


def test_a_connection_that_the_server_closed_is_opened_again() -> None:
    """A server that hangs up after each answer loses no request, and reconnections are counted."""
    with served(hang_up=True) as (port, seen):
        sent = Connections(port, REQUEST, 4)
        Load(2, 0.3, 0.1).run(sent, os.getpgrp(), threading.Event())
    assert len(set(seen)) == len(seen)
    assert 0 <= len(seen) - 4 - sent.reopened <= 4, "each request but the first four needed a new connection"


def test_a_refused_request_ends_the_measurement() -> None:
    """Only 200 counts as a result: the sentence has the status and the answer."""
    with served(status=429) as (port, _), pytest.raises(RefusedError, match=r"429 Too Many Requests: hello"):
        Load(1, 0.5, 0.1).run(Connections(port, REQUEST, 1), os.getpgrp(), threading.Event())
    with pytest.raises(CommandError, match="failed under load"):
        Load(1, 0.5, 0.1).run(Connections(1, REQUEST, 1), os.getpgrp(), threading.Event())


def test_stopping_ends_the_load() -> None:
    """A load of an hour ends at once when it is stopped."""
    stopping = threading.Event()
    timer = threading.Timer(0.5, stopping.set)
    with served() as (port, seen):
        timer.start()
        Load(1, 3600, 0.1).run(Connections(port, REQUEST, 2), os.getpgrp(), stopping)
    assert seen


def test_open_files_are_allowed_as_far_as_they_can_be() -> None:
    """The limit rises to the wanted value, and stays if the machine allows less."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        connections.allow(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
        connections.allow(50)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
        if before[1] != resource.RLIM_INFINITY:
            with pytest.raises(CommandError, match="ulimit -Hn"):
                connections.allow(before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# The order and the report


def test_one_thing_grows_at_a_time() -> None:
    """Each value of an axis differs from the base in one setting; the three axes share their base."""
    made = {axis.name: axis.setting(axis.values[-1]) for axis in AXES}
    assert made == {
        "connections": Setting(connections=2000),
        "tensor models": Setting(Served(1, 100)),
        "ensembles": Setting(Served(10, 10)),
        "batch": Setting(batch=64),
        "image KB": Setting(image_kb=10_000),
    }
    assert [axis.setting(axis.base) == BASE for axis in AXES] == [True, True, True, False, False]


def test_measurements_are_compared_with_their_base(tmp_path: Path) -> None:
    """The base is always measured, once for all axes that share it."""
    asked = order(tmp_path, connections=(2000,), tensor_models=(100,))
    assert asked.settings == (
        BASE,
        Setting(connections=2000),
        Setting(Served(1, 100)),
        Setting(batch=1),
        Setting(image_kb=10),
    )
    assert asked.served == (Served(1, 10), Served(1, 100))
    assert "--connections 10,2000 --tensor-models 10,100 --ensembles 1 --batch 1 --image-kb 10 " in asked.command


def test_the_report_has_the_ratios_by_name(tmp_path: Path) -> None:
    """Ratios are taken within rounds; their names have the axis and both values."""
    asked = order(tmp_path, connections=(10, 2000), tensor_models=(1, 10, 100))
    costs = {BASE: (1.0, 2.0), Setting(connections=2000): (1.1, 2.0), Setting(Served(1, 100)): (1.0, 2.1)}
    measured = {
        setting: [
            {"cost": cost, "throughput": 9.0, "p50": 4.0, "p99": 8.0, "reopened": 3.0, "cores_others": 0.1}
            for cost in costs.get(setting, (0.5, 1.0))
        ]
        for setting in asked.settings
    }
    made = report.of(asked, measured, Machine(2, "x86_64", 25, "", "3.11.7"))
    found = json.loads(made.as_json())
    assert found["ratios"] == {
        "cost connections 2000/10": pytest.approx(1.05),
        "cost tensor models 1/10": 0.5,
        "cost tensor models 100/10": pytest.approx(1.025),
        "p50 connections 2000/10": 1,
        "p50 tensor models 1/10": 1,
        "p50 tensor models 100/10": 1,
    }
    assert found["medians"]["connections 10"] == found["medians"]["tensor models 10"] == found["medians"]["ensembles 1"]
    assert "| connections 2000  | 1.05 (1.00 to 1.10) |" in made.text
    assert "opened again: 3 at connections 10" in made.text


def test_quick_has_the_ends(tmp_path: Path) -> None:
    """--quick keeps 2,000 connections and 100 models, and starts two servers only."""
    none = dict.fromkeys(OPTIONS)
    given = SimpleNamespace(state=tmp_path, seconds=1.5, rounds=1, callers=8, patience=0.0, quick=True, **none)
    asked = Growth.of(given)  # type: ignore[arg-type]
    names = {pair.name for axis in asked.axes for pair in axis.pairs}
    assert {"connections 2000/10", "tensor models 100/10"} <= names
    assert len(asked.served) == 2
    assert asked.estimate_s < 60


@pytest.mark.server
def test_options_that_would_do_nothing_are_refused() -> None:
    """The command makes its own models, so another repository cannot be given."""
    words = ["growth", "--models", "models"]
    done = subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "leave out --models and --backends" in done.stderr
    assert "growth" in commandline.MEASUREMENTS


# The command


@pytest.mark.server
def test_it_measures_a_real_gateway(tmp_path: Path) -> None:
    """A tiny run prints one object with costs above nothing, writes its files, and leaves nothing running."""
    state, out = tmp_path / "state", tmp_path / "out"
    words = [sys.executable, "-m", "benchmarks", "growth", "--json", "--rounds", "1", "--seconds", "0.5"]
    words += ["--connections", "10,30", "--tensor-models", "1", "--ensembles", "1", "--batch", "3", "--image-kb", "40"]
    words += ["--patience", "0", "--state", str(state), "--out", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    names = ("connections 30/10", "tensor models 1/10", "batch 3/1", "image KB 40/10")
    assert set(found["ratios"]) == {f"{metric} {name}" for metric in ("cost", "p50") for name in names}
    assert all(ratio > 0 for ratio in found["ratios"].values())
    for measured in found["medians"].values():
        assert measured["cost"] > 0
        assert 0 < measured["p50"] <= measured["p99"]
    assert sorted(path.name for path in out.iterdir()) == [f"growth{ending}" for ending in (".json", ".md", ".svg")]
    assert not (state / "growth").exists()
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]


@pytest.mark.server
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C, at the start or under load, leaves nothing running, nothing written, and no traceback."""
    state, out = tmp_path / "state", tmp_path / "out"
    words = [sys.executable, "-m", "benchmarks", "growth", "--rounds", "1", "--seconds", "600"]
    words += ["--connections", "10", "--tensor-models", "10", "--ensembles", "1", "--batch", "1", "--image-kb", "10"]
    words += ["--patience", "0", "--state", str(state), "--out", str(out)]
    run = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not list(state.glob("growth/*/state/server.json")) and time.monotonic() < deadline:
            assert run.poll() is None
            time.sleep(0.1)
        time.sleep(3)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=40)
    finally:
        run.kill()
    assert run.returncode == 130
    assert said.endswith("Stopped: nothing is left running, and nothing was written.\n")
    assert "Traceback" not in said
    assert not out.exists()
    assert not (state / "growth").exists()
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]
