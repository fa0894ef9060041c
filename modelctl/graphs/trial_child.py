"""The process in which a network from outside runs for the first time: `python -m modelctl.graphs.trial_child FOLDER`.

    FOLDER/order.json, given.npz  --ONNX Runtime, within limits-->  FOLDER/report.json, made.npz

A network that crashes ONNX Runtime, loops or fills the memory ends this process alone. `modelctl.graphs.trial` writes
the order and reads the report. Arrays are named `<run>-<number>` in the .npz files, because names of tensors are no
names of files.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

THREADS, OUTPUT_BYTES = 2, 1 << 30


def main(folder: Path) -> None:
    """Run what FOLDER/order.json asks for."""
    order = json.loads((folder / "order.json").read_text())
    _limit(order["bytes"], order["seconds"])
    report: dict[str, Any] = {}
    made: dict[str, Any] = {}
    try:
        session = _session(order["network"])
        report["outputs"] = [[port.name, port.shape] for port in session.get_outputs()]
        report["errors"] = _run_all(session, order["runs"], dict(np.load(folder / "given.npz")), made)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base
        report["refused"] = str(error)[:2000]
    np.savez(folder / "made.npz", **made)
    (folder / "report.json").write_text(json.dumps(report))


def _limit(size: int, seconds: int) -> None:
    """Limit this process: memory, CPU time, size of files; no core dump, and the first to go when memory is short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal: the parent ends this process
    for what, limit in (
        (resource.RLIMIT_DATA, size),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, OUTPUT_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hardest = resource.getrlimit(what)[1]
        least = limit if hardest == resource.RLIM_INFINITY else min(limit, hardest)
        resource.setrlimit(what, (least, hardest))  # at the hard limit of CPU time the signal would be SIGKILL
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:  # not every container lets a process say so
        return


def _session(path: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run_all(session: Any, runs: Sequence[Sequence[str]], given: dict[str, Any], made: dict[str, Any]) -> list[str]:
    """Run each item; put the outputs into `made` and return one error a run, empty where it ran."""
    errors = []
    for run, names in enumerate(runs):
        feed = {name: _array(given[f"{run}-{number}"]) for number, name in enumerate(names)}
        try:
            for number, array in enumerate(session.run(None, feed)):
                made[f"{run}-{number}"] = _stored(array)
            errors.append("")
        except Exception as error:  # noqa: BLE001 - the same
            errors.append(str(error)[:2000] or type(error).__name__)
    return errors


def _array(stored: Any) -> Any:
    """Return texts as ONNX Runtime takes them; .npz holds them without pickled objects."""
    return stored.astype(object) if stored.dtype.kind == "U" else stored


def _stored(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        raise TypeError("an output is a sequence or a map, not a tensor")
    return array.astype(str) if array.dtype == object else array


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # the work is written: a crash in ONNX Runtime's clean-up says nothing about the network
