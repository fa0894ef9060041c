"""`python -m benchmarks gateway`: perf_analyzer's table, and the ratios over the rounds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gateway import report
from benchmarks.load.perf_analyzer import Measured
from modelctl.bench.results import Machine
from modelctl.errors import CommandError

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = """\
Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,p50 latency,p90 latency,p99 latency
8,4140.33,2,1170,1458,2978,9353
"""


def test_perf_analyzers_table_is_read() -> None:
    """Its microseconds become milliseconds."""
    assert Measured.of(TABLE) == Measured(4140.33, 1.458, 9.353)


@pytest.mark.parametrize("table", ["", "Concurrency,Inferences/Second\n", "a,b\n1,2\n"])
def test_a_table_without_a_result_is_refused(table: str) -> None:
    """It does not count as a measurement of 0."""
    with pytest.raises(CommandError):
        Measured.of(table)


def turn(throughput: float, p50: float) -> dict[str, float]:
    """Return the figures of one turn."""
    spent = dict.fromkeys(("gateway_ms", "triton_ms", "load_ms", "cores_others"), 0.25)
    return {"throughput": throughput, "p50": p50, "p99": 2 * p50, **spent}


def test_ratios_are_taken_within_rounds() -> None:
    """They have the names of the goals; a lone caller's wait is a difference of milliseconds."""
    measured = {
        ("direct", 1): [turn(1000, 1.0), turn(500, 2.0), turn(1000, 1.0)],
        ("gateway", 1): [turn(500, 1.5), turn(300, 2.75), turn(700, 1.25)],
        ("joined", 1): [turn(1000, 1.5), turn(600, 2.5), turn(700, 1.25)],
    }
    made = report.of("bench", [1], measured, 90.0, 1, Machine(2, "x86_64", 8, "", "3.11"))
    found = json.loads(made.as_json())
    assert found["ratios"] == {"gateway/direct@1": 0.6, "added p50 ms@1": 0.5, "joined/direct@1": 1.0}
    assert found["ranges"]["gateway/direct@1"] == [0.5, 0.7]
    assert found["worker_mb"] == 90.0
    assert "| 0.60 (0.50 to 0.70) |" in made.page()


@pytest.mark.server
@pytest.mark.timeout(200)
def test_it_measures_a_real_gateway(tmp_path: Path) -> None:
    """One short round: JSON alone on standard output, and the three files."""
    words = ["gateway", "--quick", "--callers", "2", "--json", "--out", tmp_path / "out"]
    words += ["--state", tmp_path / "state"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ratios"].keys() == {"gateway/direct@2", "joined/direct@2"}
    assert all(value > 0 for value in found["ratios"].values())
    assert found["worker_mb"] > 10
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gateway.json", "gateway.md", "gateway.svg"}
