"""HTTP load by `wrk`, a compiled load generator that leaves the cores to the servers.

    callers, seconds, body --wrk with post.lua--> one line of JSON --Measured.of--> throughput, latency, errors

Each caller sends its next request as soon as the last is answered, over a connection of its own that stays open.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from modelctl.embedded import processes
from modelctl.errors import CommandError

SCRIPT = Path(__file__).with_name("post.lua")
TIMEOUT_S, LOOK_S = 60, 0.1
MISSING = "The load generator wrk is missing: install it (Debian, Ubuntu: apt-get install wrk)."


@dataclass(frozen=True)
class Measured:
    """The result of a load.

    Attributes:
        answers: number of answers, without refusals.
        seconds: duration.
        p50_ms: the median latency as wrk reports it, with refusals.
        p99_ms: the 99th percentile, likewise.
        errors: answers with a status of 400 and above, and connection failures.

    """

    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def throughput(self) -> float:
        """Answers per second, without refusals."""
        return self.answers / self.seconds

    @classmethod
    def of(cls, printed: str) -> Self:
        """Read wrk's output; raises CommandError when the line of post.lua is missing."""
        try:
            found = json.loads(printed.rstrip().rpartition("\n")[2])
            answered = found["requests"] - found["status"]
            errors = found["status"] + found["sockets"]
            return cls(answered, found["seconds"], found["p50_ms"], found["p99_ms"], errors)
        except (ValueError, TypeError, KeyError) as error:
            raise CommandError(f"wrk printed no result: {printed.strip()[-300:]}") from error


def find() -> str:
    """Return the path of wrk; raises CommandError, which says how to install it, when it is missing."""
    found = shutil.which("wrk")
    if found is None:
        raise CommandError(MISSING)
    return found


def run(
    url: str,
    callers: int,
    seconds: float,
    body: Path | None = None,
    headers: Mapping[str, str] | None = None,
    stopping: threading.Event | None = None,
) -> Measured:
    """Put a load on a URL for whole seconds (rounded up); wrk uses at most one core.

    Args:
        url: of an HTTP server.
        callers: concurrent requests.
        seconds: duration.
        body: the file that every request posts; None: every request is a GET.
        headers: of every POST, such as Content-Type.
        stopping: when set, the load ends; its answers until then are returned.

    Raises:
        CommandError: when wrk is missing, cannot connect, or counts nothing.

    """
    words = [find(), "-t1", f"-c{callers}", f"-d{math.ceil(seconds)}s", f"--timeout={TIMEOUT_S}s", f"-s{SCRIPT}", url]
    if body is not None:
        words += ["--", str(body), *(f"{name}: {value}" for name, value in (headers or {}).items())]
    process = subprocess.Popen(  # noqa: S603 - our own command line
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=processes.dies_with_parent(),
    )
    try:
        while True:
            if stopping is not None and stopping.is_set():
                process.send_signal(signal.SIGINT)  # wrk then prints its result so far
            try:
                printed, _ = process.communicate(timeout=LOOK_S)
                break
            except subprocess.TimeoutExpired:
                continue
    finally:
        process.kill()
        process.wait()
    return Measured.of(printed)
