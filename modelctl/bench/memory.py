"""Memory of a server, in MB (1,000,000 bytes): the host's as the kernel counts it, GPUs' as Triton's metrics report it.

A process's share is its PSS (proc(5), smaps_rollup): its own pages, and its part of those that it shares with others.
So the shares of server and stubs add up to their total.
"""

from __future__ import annotations

import http.client
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from modelctl.embedded import processes
from modelctl.errors import CommandError

MB = 1_000_000
PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)
GPU_USED = re.compile(r"^nv_gpu_memory_used_bytes(?:\{[^}]*\})? (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """The number of processes of one Python-run model, and their total memory in MB."""

    processes: int
    mb: float


@dataclass(frozen=True)
class Host:
    """The memory of a process group in MB, and the part of each Python-run model."""

    mb: float
    steps: dict[str, Step]


def host(group: int) -> Host:
    """Return the memory of a process group; raises CommandError when the kernel does not report it."""
    shares = {pid: pss(pid) for pid in processes.living(group)}
    steps: dict[str, list[float]] = defaultdict(list)
    for stub in processes.stubs(group):
        steps[stub.model].append(shares.get(stub.pid, 0.0))
    return Host(sum(shares.values()), {name: Step(len(each), sum(each)) for name, each in sorted(steps.items())})


def pss(pid: int) -> float:
    """Return one process's share in MB; 0 when it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    except OSError as error:
        raise CommandError(
            f"The memory of process {pid} cannot be read ({error.strerror}): this needs Linux 4.14 or later, "
            "and permission to inspect one's own processes."
        ) from error
    found = PSS.search(text)
    return int(found[1]) * 1024 / MB if found else 0.0


def metrics(port: int) -> str | None:
    """Return the page of Triton's metrics (Prometheus' text format); None when it is not served."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def gpu(page: str) -> float | None:
    """Return the memory in use on all GPUs of the metrics, in MB, by any program; None without a GPU."""
    used = [float(number) for number in GPU_USED.findall(page)]
    return sum(used) / MB if used else None
