"""A Triton to be broken, with a model of a given pace."""

from __future__ import annotations

import os
import shutil
import signal
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
STANDINS = ROOT / "tests" / "standins"
FULL = os.environ.get("FAULTS") == "full"
"""Whether the tests take the time that figures need (`FAULTS=full ./dev_test.sh tests/faults`), or a few seconds."""


class Triton:
    """One Triton under its supervisor, with the model `paced`."""

    def __init__(self, stack: Any) -> None:
        self.stack = stack
        self.folder = stack.models / "paced"
        self.address = stack.address
        """Where its gRPC listens."""
        shutil.copytree(STANDINS / "models" / "paced", self.folder)
        (stack.folder / "backends" / "paced").symlink_to(STANDINS / "backends" / "paced")

    def pace(self, seconds: float) -> None:
        """Set the duration of each call."""
        self._say("pace", str(seconds))

    def fault(self, kind: str) -> None:
        """Make it raise, crash or lie; empty ends that."""
        self._say("fault", kind)

    def _say(self, name: str, text: str) -> None:
        new = self.folder / f"{name}.new"
        new.write_text(text)
        new.rename(self.folder / name)

    @property
    def process(self) -> psutil.Process | None:
        """The server's process, if it runs."""
        for child in psutil.Process(self.stack.triton.pid).children(recursive=True):
            if child.name() == "tritonserver" and child.status() != psutil.STATUS_ZOMBIE:
                return child
        return None

    def kill(self) -> None:
        """Kill it, as a crash would."""
        process = self.process
        assert process is not None
        process.send_signal(signal.SIGKILL)

    def memory(self) -> int:
        """Return the bytes that the server and its steps hold, shared ones in equal parts."""
        processes = psutil.Process(self.stack.triton.pid).children(recursive=True)
        return sum(process.memory_full_info().pss for process in processes)


def until(condition: Callable[[], object], seconds: float) -> float:
    """Wait until something holds; return the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - begun


def scrape(gateway: Any, label: str = "") -> defaultdict[str, list[float]]:
    """Return the values of each metric; with a text, of series whose labels contain it."""
    found = defaultdict[str, list[float]](list)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"{gateway.url}/metrics", timeout=10
    ) as answer:
        for line in answer.read().decode().splitlines():
            if not line.startswith("#") and label in line:
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0]].append(float(value))
    return found
