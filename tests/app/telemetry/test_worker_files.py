"""The metrics of workers that have ended, and the folders of killed gateways."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from app.telemetry.worker_files import FOLDER, WorkerFiles, reading, sweep

# A worker counts and is killed, so many times; the scrapes are those of a process that lives on.
WORKERS = """
import asyncio, json, os, signal, sys, time
from pathlib import Path
from app.telemetry.metrics import Metrics
from app.context import Context
from app.telemetry.worker_files import WorkerFiles

folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
files, metrics, seen = WorkerFiles(folder), Metrics(), []
for number in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid:
        metrics.observe("/r", 200, Context("id"), 0.02)
        metrics.running.set(1000)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    files.forget(pid)
    files.merge([os.getpid()])
    begun = time.perf_counter()
    text = asyncio.run(metrics.text()).decode()
    seconds = time.perf_counter() - begun
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    seen.append({
        "files": len(list(folder.iterdir())), "seconds": seconds,
        "requests": sum(float(value) for name, value in values.items() if name.startswith("gateway_requests_total")),
        "fast": float(values['gateway_request_seconds_bucket{le="0.025",route="/r"}']),
        "all": float(values['gateway_request_seconds_bucket{le="+Inf",route="/r"}']),
        "sum": float(values['gateway_request_seconds_sum{route="/r"}']),
        "running": float(values["gateway_requests_running"]),
    })
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_counts_of_dead_workers_are_kept_in_few_files(tmp_path: Path) -> None:
    """20 killed workers leave as many files as two; the sums hold all counts; no gauge is left."""
    environment = {**os.environ, FOLDER: str(tmp_path)}
    command = [sys.executable, "-c", WORKERS, "20"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert [one["requests"] for one in seen] == list(range(1, 21))
    assert [one["fast"] for one in seen] == [one["all"] for one in seen] == list(range(1, 21))
    assert seen[-1]["sum"] == pytest.approx(0.4)
    assert seen[-1]["files"] == seen[1]["files"]
    assert all(one["running"] < 1000 for one in seen)
    assert min(one["seconds"] for one in seen[10:]) < 3 * max(one["seconds"] for one in seen[:5])


def write(folder: Path, pid: int, amount: float) -> None:
    """Write a worker's counts."""
    values = MmapedDict(str(folder / f"counter_{pid}.db"))
    values.write_value("counted", amount, 0.0)
    values.close()


def counted(folder: Path) -> dict[str, float]:
    """Return the values of each file."""
    return {
        path.name: sum(value for _, value, _, _ in MmapedDict.read_all_values_from_file(str(path)))
        for path in sorted(folder.glob("*.db"))
    }


def test_files_in_use_are_not_merged(tmp_path: Path) -> None:
    """A scrape sees each count once; a living worker's files stay; an empty file is 0."""
    files = WorkerFiles(tmp_path)
    write(tmp_path, 1, 10)
    write(tmp_path, 2, 20)
    (tmp_path / "counter_3.db").touch()
    for pid in (1, 2, 3):
        files.forget(pid)
    with reading(tmp_path):
        files.merge([])
        assert {path.name for path in tmp_path.glob("*.db")} == {"counter_1.db", "counter_2.db", "counter_3.db"}
    files.merge([2])
    assert counted(tmp_path) == {"counter_2.db": 20, "counter_dead.db": 10}
    files.merge([])
    assert counted(tmp_path) == {"counter_2.db": 20, "counter_dead.db": 10}
    files.forget(2)
    files.merge([])
    assert counted(tmp_path) == {"counter_dead.db": 30}


def test_folders_of_killed_gateways_are_removed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a folder whose owner file nobody holds goes; links, others' folders and living ones stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outside = tmp_path / "outside"
    for folder in (tmp_path / "gateway-dead", tmp_path / "gateway-alive", tmp_path / "gateway-no-owner", outside):
        folder.mkdir()
        (folder / "counter_1.db").touch()
        if folder.name != "gateway-no-owner":
            (folder / "owner").touch()
    (tmp_path / "gateway-link").symlink_to(outside)
    linked = tmp_path / "gateway-linked-owner"
    linked.mkdir()
    (linked / "owner").symlink_to(outside / "owner")
    (tmp_path / "gateway-file").touch()
    with (tmp_path / "gateway-alive" / "owner").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        "outside",
        "gateway-alive",
        "gateway-no-owner",
        "gateway-link",
        "gateway-linked-owner",
        "gateway-file",
    }
    assert (outside / "counter_1.db").exists()


def test_a_folder_is_its_masters_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next gateway leaves a used folder alone; at the end, folder and variable are gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with WorkerFiles.made():
        sweep()
        assert len(list(tmp_path.iterdir())) == 1
        assert os.environ[FOLDER].startswith(str(tmp_path))
    assert not list(tmp_path.iterdir())
    assert FOLDER not in os.environ
