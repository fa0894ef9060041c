"""`python -m benchmarks tasks`: its load, the peers' pipeline, the figures, and a run on real servers."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import psutil
import pytest
from living import is_alive

from benchmarks import commandline
from benchmarks.load import wrk
from benchmarks.peers.pipeline import Facts, Pipeline, item
from benchmarks.tasks import facts, measure, report, workload
from benchmarks.tasks.peers import FOLDER
from modelctl.bench import chart
from modelctl.bench.chart import Panel, Series
from modelctl.bench.results import Machine, Spread
from modelctl.embedded import processes
from modelctl.errors import CommandError

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "models"
# The load


def test_the_output_of_wrk_is_read() -> None:
    """The last line counts; refusals are errors, not answers."""
    printed = (
        "Running 2s test @ http://127.0.0.1:1/v1/classify\n  1 threads and 8 connections\n"
        '{"seconds": 2.000000, "requests": 110, "p50_ms": 9.500, "p99_ms": 30.250, "status": 10, "sockets": 3}\n'
    )
    found = wrk.Measured.of(printed)
    assert found == wrk.Measured(answers=100, seconds=2.0, p50_ms=9.5, p99_ms=30.25, errors=13)
    assert found.throughput == 50
    with pytest.raises(CommandError, match="no result: unable to connect"):
        wrk.Measured.of("unable to connect to 127.0.0.1:9 Connection refused\n")


def test_a_missing_wrk_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how to install wrk."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CommandError, match="apt-get install wrk"):
        wrk.find()


class Echo(BaseHTTPRequestHandler):
    """Answers with the posted body, and refuses at /no."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[set[tuple[bytes, str]]] = set()

    def do_POST(self) -> None:
        """Answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.add((body, self.headers["Content-Type"]))
        self.send_response(503 if self.path == "/no" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def echo() -> Iterator[str]:
    """Return the URL of a small server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_wrk_posts_the_file_and_counts_refusals(echo: str, tmp_path: Path) -> None:
    """Every request has the given body and header; a refusal is an error, not an answer."""
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)))
    served = wrk.run(f"{echo}/ok", 2, 1, body, {"Content-Type": "image/jpeg"})
    assert served.answers > 0
    assert served.errors == 0
    assert 0 < served.p50_ms <= served.p99_ms
    assert {(body.read_bytes(), "image/jpeg")} == Echo.seen
    refused = wrk.run(f"{echo}/no", 2, 1, body, {"Content-Type": "image/jpeg"})
    assert refused.answers == 0
    assert refused.errors > 0


@pytest.mark.slow
def test_a_load_ends_when_it_is_stopped(echo: str, tmp_path: Path) -> None:
    """A load of a minute ends at once, with the answers so far."""
    (tmp_path / "body").write_bytes(b"x")
    stopping = threading.Event()
    threading.Timer(1, stopping.set).start()
    begun = time.monotonic()
    assert wrk.run(f"{echo}/ok", 1, 60, tmp_path / "body", {}, stopping).answers > 0
    assert time.monotonic() - begun < 30


# What is sent, and the peers' pipeline


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """Return the peers' description of the bundled models."""
    facts.write(tmp_path / "facts.json", MODELS, list(workload.TASKS), "127.0.0.1:1")
    monkeypatch.setenv("PEER_FACTS", str(tmp_path / "facts.json"))
    return Facts.read()


@pytest.mark.parametrize("name", workload.NAMES)
def test_peers_answer_as_the_gateway_does(name: str, told: Facts, tmp_path: Path, http: httpx.Client) -> None:
    """The same labels, scores, boxes, sizes and token counts, from a network in this process."""
    (work,) = workload.write(tmp_path, [name])
    wanted = http.post(work.path, content=work.body.read_bytes(), headers=dict(work.headers)).json()
    (found,) = Pipeline(told, work.task)([item(work.task, work.body.read_bytes())])
    assert workload.same(found, wanted)
    if work.task == "sentiment":
        assert found["usage"] == wanted["usage"] == {"tokens": int(name.split()[1]), "truncated": False}
    else:
        assert found["image"] == wanted["image"]
        if name == "classify 1080p":
            assert found["image"] == {"width": 1920, "height": 1080}
    for one, other in zip(found.get("predictions", []), wanted.get("predictions", []), strict=True):
        assert one["class_id"] == other["class_id"]
        assert one.get("box", {}) == pytest.approx(other.get("box", {}), abs=0.5)


def test_a_batch_gives_each_item_its_own_answer(told: Facts) -> None:
    """Items that shared a run of the network are answered separately, in order."""
    pictures = [(ROOT / "docs" / "samples" / name).read_bytes() for name in ("coffee.jpg", "chelsea.jpg")]
    pipeline = Pipeline(told, "classify")
    together, alone = pipeline(pictures), [pipeline([picture])[0] for picture in pictures]
    assert together[0]["predictions"][0]["label"] == "espresso"
    assert all(workload.same(one, other) for one, other in zip(together, alone, strict=True))
    assert not workload.same(together[0], alone[1])


def test_answers_are_the_same_by_labels_and_scores() -> None:
    """A list of one equals its item; another label, order or score, or no answer, is a difference."""
    answer = {"predictions": [{"label": "cup", "score": 0.6}, {"label": "bowl", "score": 0.3}]}
    assert workload.same([answer], answer)
    assert workload.same({"predictions": [{"label": "cup", "score": 0.605}, answer["predictions"][1]]}, answer)
    for other in (
        {"predictions": answer["predictions"][::-1]},
        {"predictions": answer["predictions"][:1]},
        {"predictions": [{"label": "cup", "score": 0.7}, answer["predictions"][1]]},
        {"predictions": []},
        {"code": "overloaded"},
        None,
    ):
        assert not workload.same(other, answer)


def test_a_task_without_a_default_model_is_refused(tmp_path: Path) -> None:
    """The sentence names the option that leaves the task out."""
    shutil.copytree(MODELS / "simple_net", tmp_path / "models" / "simple_net")
    with pytest.raises(CommandError, match=r"default of detect: leave it out of --tasks"):
        facts.write(tmp_path / "facts.json", tmp_path / "models", ["detect"], "")


@pytest.mark.parametrize("peer", ["litserve", "bentoml"])
def test_peers_run_networks_by_our_own_versions(peer: str) -> None:
    """Their environments have our versions of ONNX Runtime, Pillow, numpy and tokenizers, with hashes."""
    pins = r"^(numpy|onnxruntime|pillow|tokenizers)==(\S+)"
    ours = re.findall(pins, (ROOT / "requirements" / "local.txt").read_text(), re.MULTILINE)
    text = (ROOT / FOLDER / f"{peer}.txt").read_text()
    assert sorted(re.findall(pins, text, re.MULTILINE)) == sorted(ours)
    assert len(ours) == 4
    assert "://" not in text, "no address of an index is committed"


def test_a_process_is_found_in_groups_of_its_own() -> None:
    """Processes of a server in groups of their own belong to it too."""
    inner = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], start_new_session=True)"
    with subprocess.Popen([sys.executable, "-c", inner], stdin=subprocess.PIPE, start_new_session=True) as process:
        deadline = time.monotonic() + 30
        while len(found := processes.groups(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        (child,) = psutil.Process(process.pid).children()
        assert found == {process.pid, child.pid}


# Figures

COUNTS = (1, 8)


def figures(throughput: float) -> dict[str, float]:
    """Return made-up figures of one load."""
    return {
        "throughput": throughput,
        "p50": 8e3 / throughput,
        "p99": 2e4 / throughput,
        "errors": 0,
        "cpu": 9,
        "memory": 500,
    }


@pytest.fixture
def rounds() -> measure.Rounds:
    """Return two rounds, of which the second is half as fast."""
    speeds = {"gateway": 180.0, "proxy": 90.0, "fastapi": 100.0, "litserve": 150.0, "bentoml": 120.0}
    made: measure.Rounds = {
        ("detect", name, count): [figures(speed), figures(speed / 2)]
        for name, speed in speeds.items()
        for count in COUNTS
    }
    made["detect", "bentoml", 8] = [figures(140.0), figures(90.0)]  # the best of one round, not by the median
    bare = {"throughput": 200.0, "errors": 0.0, "cpu": 8.0, "memory": 300.0}
    made["detect", "bare", 0] = [bare, {**bare, "throughput": 100.0}]
    return made


def test_the_best_peer_is_the_best_by_its_median(rounds: measure.Rounds) -> None:
    """One server is the best, of those that run the networks themselves; a naive proxy never counts."""
    assert report.best(rounds, "detect", 1) == "litserve"
    assert report.best(rounds, "detect", 8) == "bentoml"  # 115 to 112.5
    rounds["detect", "proxy", 1] = [figures(1e6), figures(1e6)]
    assert report.best(rounds, "detect", 1) == "litserve"
    assert report.best(rounds, "detect", 32) is None


def test_ratios_are_the_gateways_to_each_other(rounds: measure.Rounds) -> None:
    """Ratios are taken within rounds; a single caller is not compared with a process per core."""
    found = report.compare(rounds, ["detect"], COUNTS)
    assert found["detect: gateway/bare@8"] == Spread(0.9, 0.9, 0.9)
    assert found["detect: gateway/proxy@1"] == Spread(2, 2, 2)
    assert found["detect: gateway/best peer@1"] == found["detect: gateway/litserve@1"] == Spread(1.2, 1.2, 1.2)
    assert found["detect: gateway/best peer@8"].low == 1
    assert found["detect: gateway/best peer@8"].high == pytest.approx(9 / 7)
    assert set(found) == {
        f"detect: gateway/{name}@{count}"
        for count in COUNTS
        for name in ("best peer", "proxy", "fastapi", "litserve", "bentoml", *(["bare"] if count > 1 else []))
    }


def test_the_report_begins_with_ratios(rounds: measure.Rounds, tmp_path: Path) -> None:
    """JSON has them flat; the page shows them before the figures; the chart is an SVG; three files exist."""
    extra = {"gateway_worker_mb": 65.0}
    machine = Machine(2, "x86_64", 25, "", "3.11.7")
    made = report.of("python -m benchmarks tasks", ["detect"], COUNTS, rounds, extra, machine)
    found = json.loads(made.as_json())
    assert found["ratios"]["detect: gateway/bare@8"] == 0.9
    assert found["ranges"]["detect: gateway/best peer@8"] == [1.0, 1.2857]
    assert found["best_peer"] == {"detect@1": "litserve", "detect@8": "bentoml"}
    assert found["medians"]["detect: gateway@8"]["throughput"] == 135
    assert found["medians"]["detect: bare"] == {"throughput": 150, "errors": 0, "cpu": 8, "memory": 300}
    lines = made.text.splitlines()
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == [
        "detect @8",
        "0.90",
        "1.14 (1.00 to 1.29) bentoml",
        "2.00",
        "1.80",
        "1.20",
        "1.14 (1.00 to 1.29)",
    ]
    assert made.text.index("workload @callers") < made.text.index("## detect")
    ET.fromstring(made.chart)
    assert [path.name for path in made.write(tmp_path)] == ["tasks.md", "tasks.json", "tasks.svg"]


def test_charts_may_have_rows() -> None:
    """After a number of columns panels go into a new row, and the picture is as high as its rows."""
    panel = Panel("requests/s", "server", ["gateway"], [Series("requests/s", [Spread(1, 1, 1)])], 420)
    tree = ET.fromstring(chart.draw("three", [panel] * 3, columns=2))
    assert (tree.get("width"), tree.get("height")) == ("840", "600")
    moves = [one.get("transform") for one in tree.iter("{http://www.w3.org/2000/svg}g")]
    assert moves == ["translate(0 0)", "translate(420 0)", "translate(0 300)"]


# The command


def options(*words: str) -> argparse.Namespace:
    """Return the command line as `python -m benchmarks` reads it."""
    return commandline.build().parse_args(["tasks", *words])


def test_quick_is_less_of_the_same() -> None:
    """--quick sends less, to fewer callers, for a second; without it everything is measured."""
    everything = measure.Order.of(options())
    assert everything.workloads == workload.NAMES
    assert everything.callers == (1, 8, 32)
    assert (everything.seconds, everything.rounds) == (8, 3)
    quick = measure.Order.of(options("--quick"))
    assert {name.split()[0] for name in quick.workloads} == set(workload.TASKS)
    assert (quick.callers, quick.seconds, quick.warm_up) == ((8,), 1, 0)
    work = workload.Workload("detect", "detect", Path("x.jpg"), {})
    assert (everything.window(work), quick.window(work)) == (16, 2)
    assert quick.peers == everything.peers == ("proxy", "fastapi", "litserve", "bentoml", "bare")


def test_the_report_has_the_command_that_repeats_it() -> None:
    """Options choose tasks, peers and callers, and appear in that command."""
    words = ("--tasks", "sentiment", "--peers", "bare,proxy", "--callers", "32,8", "--seconds", "2", "--rounds", "4")
    order = measure.Order.of(options(*words))
    assert order.workloads == ("sentiment 16 tokens", "sentiment 128 tokens")
    assert order.command == (
        "python -m benchmarks tasks --tasks sentiment --peers proxy,bare --callers 8,32 --seconds 2 --rounds 4"
    )
    assert measure.Order.of(options(*order.command.split()[4:])) == order


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--peers", "kserve"), "is not a list of names: give some of proxy, fastapi"),
        (("--tasks", "detect,translate"), "is not a list of names: give some of classify, detect"),
        (("--callers", "0"), "from 1 to 512"),
    ],
)
def test_wrong_choices_are_refused(words: tuple[str, str], sentence: str) -> None:
    """The sentence lists the possible choices."""
    with pytest.raises(CommandError, match=sentence):
        options(*words)


@pytest.mark.server
def test_it_measures_real_servers(tmp_path: Path) -> None:
    """A run with the peers of our own environment prints one object, writes its files, and leaves nothing running."""
    words = [sys.executable, "-m", "benchmarks", "tasks", "--quick", "--json", "--tasks", "sentiment"]
    words += ["--peers", "proxy,fastapi,bare", "--callers", "2", "--state", str(tmp_path / "state")]
    words += ["--out", str(tmp_path / "out")]
    family: dict[int, psutil.Process] = {}
    with (tmp_path / "out.json").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(words, cwd=ROOT, stdout=out, stderr=err, env=dict(os.environ))
        while process.poll() is None:
            family |= {one.pid: one for one in psutil.Process(process.pid).children(recursive=True)}
            time.sleep(0.2)
    assert process.returncode == 0, (tmp_path / "err").read_text()
    found = json.loads((tmp_path / "out.json").read_text())
    name = "sentiment 16 tokens: gateway"
    assert set(found["ratios"]) == {f"{name}/{other}@2" for other in ("bare", "best peer", "proxy", "fastapi")}
    assert all(ratio > 0 for ratio in found["ratios"].values())
    assert all(measured["errors"] == 0 for measured in found["medians"].values())
    assert all(measured["cpu"] > 0 and measured["memory"] > 10 for measured in found["medians"].values())
    assert found["best_peer"] == {"sentiment 16 tokens@2": "fastapi"}
    assert 10 < found["gateway_worker_mb"] < found["medians"][f"{name}@2"]["memory"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["tasks.json", "tasks.md", "tasks.svg"]
    assert len(family) > 8, "Triton with its steps, the gateway, and the peers"
    assert not [one for one in family.values() if is_alive(one)]
