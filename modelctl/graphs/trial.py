"""Runs a network from outside for the first time, in a process of its own, and says what really came out.

    network, inputs --folder--> trial_child, within limits --folder--> outputs by run, or one sentence

Nobody has run the file before: it may crash ONNX Runtime, never end, or ask for all memory. Only the child then ends;
neither the command nor Triton has met the network.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelctl.errors import CommandError
from modelctl.graphs import external
from modelctl.graphs.networks import Arrays

CPU_SECONDS, WALL_SECONDS = 120, 900
"""How long all runs of one trial may take. CPU time decides, since a busy machine makes every network slow."""
BASE_BYTES, BYTES_OF_WEIGHTS = 4 << 30, 6
"""Memory that a trial may take: a base, and so many times the size of the file and its weights."""
TOO_LONG = (
    "The network did not end within {} seconds of CPU time on sample inputs, so it was not tried in Triton: "
    "export a smaller network, or one for smaller items."
)
TOO_LARGE = (
    "The network needs more memory on sample inputs than a trial may take, so it was not tried in Triton: "
    "export a smaller network, or one for smaller items."
)
OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory", "MemoryError", "Unable to allocate", "File too large")
COMMAND = (sys.executable, "-m", "modelctl.graphs.trial_child")


@dataclass(frozen=True)
class Trial:
    """What a network gave.

    Attributes:
        shapes: the sizes of each output as ONNX Runtime infers them from the graph: numbers, or None where free; empty
            where it infers none.
        runs: for each run the outputs by name, or the text of the error.

    """

    shapes: dict[str, tuple[int | None, ...]]
    runs: tuple[Arrays | str, ...]

    def made(self, run: int) -> Arrays:
        """Return the outputs of one run; raises CommandError when it failed."""
        outputs = self.runs[run]
        if isinstance(outputs, str):
            raise CommandError(_refusal("The network cannot be run", outputs))
        return outputs


def run(path: Path, feeds: Sequence[Arrays]) -> Trial:
    """Run a network on each of `feeds`, in a process of its own.

    Raises:
        CommandError: when ONNX Runtime refuses the network, crashes on it, or exceeds a limit. A run that fails in the
            ordinary way is part of the trial instead.

    """
    with tempfile.TemporaryDirectory(prefix="trial-", dir=path.parent) as name:
        folder = Path(name)
        arrays = {f"{n}-{m}": array for n, feed in enumerate(feeds) for m, array in enumerate(feed.values())}
        np.savez(folder / "given.npz", **{key: _plain(array) for key, array in arrays.items()})
        order = {
            "network": str(path.resolve()),
            "runs": [list(feed) for feed in feeds],
            "seconds": CPU_SECONDS,
            "bytes": _bytes(path),
        }
        (folder / "order.json").write_text(json.dumps(order))
        _run_child(folder)
        return _read(folder)


def _bytes(path: Path) -> int:
    return BASE_BYTES + BYTES_OF_WEIGHTS * (path.stat().st_size + external.size_beside(path))


def _plain(array: Any) -> Any:
    """Return texts as an array without objects, which .npz would pickle."""
    return array.astype(str) if array.dtype == object else array


def _run_child(folder: Path) -> None:
    with (folder / "said").open("wb") as said:
        child = subprocess.Popen(  # noqa: S603 - our own module, on files of our own names
            [*COMMAND, str(folder)], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        try:
            code = child.wait(WALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise CommandError(TOO_LONG.format(CPU_SECONDS)) from None
        finally:  # Ctrl-C too
            child.kill()
            child.wait()
    if code:
        raise CommandError(_ending(code, (folder / "said").read_text("utf-8", "replace")))


def _ending(code: int, said: str) -> str:
    """Return what the end of a child means."""
    if -code == signal.SIGXCPU:
        return TOO_LONG.format(CPU_SECONDS)
    if -code == signal.SIGKILL or any(word in said for word in OUT_OF_MEMORY):
        return TOO_LARGE
    if code < 0:
        return (
            f"ONNX Runtime crashes on the network ({signal.Signals(-code).name}), in a process of its own: Triton was "
            "not touched. Export the network again, if possible with another version of the exporter."
        )
    return f"The network could not be tried: {_line(said.strip().rpartition(chr(10))[2]) or f'exit code {code}'}"


def _read(folder: Path) -> Trial:
    report = json.loads((folder / "report.json").read_text())
    if "refused" in report:
        raise CommandError(_refusal("ONNX Runtime refuses the network", report["refused"]))
    shapes = {
        name: tuple(size if isinstance(size, int) and size > 0 else None for size in shape or ())
        for name, shape in report["outputs"]
    }
    runs: list[Arrays | str] = []
    with np.load(folder / "made.npz") as arrays:
        for number, error in enumerate(report["errors"]):
            runs.append(error or {name: arrays[f"{number}-{at}"] for at, name in enumerate(shapes)})
    return Trial(shapes, tuple(runs))


def _refusal(what: str, text: str) -> str:
    return TOO_LARGE if any(word in text for word in OUT_OF_MEMORY) else f"{what}: {_line(text)}"


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
