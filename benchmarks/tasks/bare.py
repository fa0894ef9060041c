"""The upper bound: bare processes, one per core, that do the whole job in a loop, without a server."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from benchmarks.tasks.peers import Process
from benchmarks.tasks.workload import Workload, same
from modelctl.bench import memory
from modelctl.embedded import processes
from modelctl.errors import CommandError

PROGRAM = ("-m", "benchmarks.peers.bare")


class Bare:
    """One process per core, each with all networks and one thread."""

    def __init__(self, state: Path, facts: Path) -> None:
        self._processes: list[Process] = []
        for number in range(len(os.sched_getaffinity(0))):
            name = f"bare{number}"
            words, environment = [sys.executable, *PROGRAM], {"PEER_FACTS": str(facts)}
            self._processes.append(Process(name, words, environment, state / f"{name}.log"))

    def wait(self, workloads: list[Workload], answers: list[Any], stopping: threading.Event) -> None:
        """Wait until all have loaded the networks; compare their answers with the gateway's.

        Raises:
            CommandError: when one ends, or its answer differs.
            Stopped: when told to stop meanwhile.

        """
        for process in self._processes:
            process.receive()
        for workload, wanted in zip(workloads, answers, strict=True):
            for said in self._loop(workload, 0.0, stopping):
                if not same(said["answer"], wanted):
                    raise CommandError(f"The bare processes answer {workload.name} differently from the gateway.")

    def measure(self, workload: Workload, seconds: float, stopping: threading.Event) -> dict[str, float]:
        """Let all work for `seconds`; return the figures of all together."""
        groups = [group for process in self._processes for group in process.groups]
        before = sum(map(processes.processor_seconds, groups))
        said = self._loop(workload, seconds, stopping)
        cpu = sum(map(processes.processor_seconds, groups)) - before
        count = sum(one["count"] for one in said)
        return {
            "throughput": sum(one["count"] / one["seconds"] for one in said),
            "errors": 0.0,
            "cpu": 1e3 * cpu / count,
            "memory": sum(memory.host(group).mb for group in groups),
        }

    def stop(self) -> None:
        """End them."""
        for process in self._processes:
            process.stop()

    def _loop(self, workload: Workload, seconds: float, stopping: threading.Event) -> list[dict[str, Any]]:
        for process in self._processes:
            process.send([workload.task, str(workload.body.absolute()), seconds])
        stopping.wait(seconds)
        for process in self._processes:
            process.check(stopping)
        return [process.receive() for process in self._processes]
