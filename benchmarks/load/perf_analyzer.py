"""Load on Triton itself over gRPC, by NVIDIA's `perf_analyzer`: the throughput that the gateway is compared with.

Its last release is in one wheel of tritonclient (perf_analyzer.txt), which is installed into a folder of its own.
"""

from __future__ import annotations

import csv
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks import packages
from modelctl.bench.fresh import Stopped
from modelctl.embedded import processes
from modelctl.errors import CommandError

LOCK = Path(__file__).with_name("perf_analyzer.txt")
LOOK_S, TRIALS = 0.1, 3
MISSING = "perf_analyzer needs the library libb64.so.0d: install it (Debian, Ubuntu: apt-get install libb64-0d)."


@dataclass(frozen=True)
class Measured:
    """The result of Triton itself: inferences per second, and latencies in milliseconds."""

    throughput: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, table: str) -> Self:
        """Read the CSV of perf_analyzer; raises CommandError when it holds no result."""
        try:
            row = next(csv.DictReader(table.splitlines()))
            p50, p99 = (float(row[f"p{percent} latency"]) / 1e3 for percent in (50, 99))
            return cls(float(row["Inferences/Second"]), p50, p99)
        except (StopIteration, KeyError, ValueError) as error:
            raise CommandError(f"perf_analyzer wrote no result: {table.strip()[-300:]}") from error


class PerfAnalyzer:
    """The program, installed when it is missing."""

    def __init__(self, folder: Path, libraries: Path) -> None:
        """Install it if it is missing.

        Args:
            folder: holds the installation, for later runs too.
            libraries: of the embedded server's wheel, which hold the CUDA runtime that the program is linked with.

        Raises:
            CommandError: when it cannot be installed here.

        """
        self._folder = folder / f"perf_analyzer-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
        try:
            ctypes.CDLL("libb64.so.0d")
        except OSError as error:
            raise CommandError(MISSING) from error
        if not self._program.is_file():
            new = self._folder.with_name(f"{self._folder.name}.new")
            for old in (self._folder, new):
                shutil.rmtree(old, ignore_errors=True)
            packages.install(LOCK, target=new)
            new.rename(self._folder)
        runtime = next(iter(sorted(libraries.glob("libcudart*.so.12*"))), None)
        if runtime is None:
            raise CommandError(f"{libraries} lacks the CUDA runtime that perf_analyzer is linked with.")
        link = self._folder / "libcudart.so.12"
        link.unlink(missing_ok=True)
        link.symlink_to(runtime)

    @property
    def _program(self) -> Path:
        return self._folder / "bin" / "perf_analyzer"

    def run(
        self, target: str, model: str, inputs: dict[str, str], callers: int, seconds: float, stopping: threading.Event
    ) -> Measured:
        """Call a model from concurrent callers, one item per request, and return the result.

        Raises:
            CommandError: when it fails.
            Stopped: when `stopping` is set meanwhile.

        """
        data, table = self._folder / "inputs.json", self._folder / "result.csv"
        data.write_text(json.dumps({"data": [{name: [value] for name, value in inputs.items()}]}))
        table.unlink(missing_ok=True)
        words = [str(self._program), "-m", model, "-u", target, "-i", "grpc", "--input-data", str(data)]
        words += [word for name in inputs for word in ("--shape", f"{name}:1")]
        # Three windows make one measurement: a stability of 999 percent discards none of them.
        words += ["--concurrency-range", str(callers), "--stability-percentage", "999", "--max-trials", str(TRIALS)]
        words += ["--measurement-interval", str(round(1e3 * seconds / TRIALS)), "-f", str(table)]
        process = subprocess.Popen(  # noqa: S603 - our own command line
            words,
            env={**os.environ, "LD_LIBRARY_PATH": str(self._folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=processes.dies_with_parent(),
        )
        try:
            while process.poll() is None:
                if stopping.wait(LOOK_S):
                    raise Stopped
        finally:
            process.kill()
            said, _ = process.communicate()
        if process.returncode or not table.is_file():
            raise CommandError(f"perf_analyzer failed: {said.strip()[-500:]}")
        return Measured.of(table.read_text())
