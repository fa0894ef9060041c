"""HTTP load by `wrk`, a compiled load generator, which leaves the cores to the servers.

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
MISSING = "wrk, which makes the load, is missing: install it (Debian, Ubuntu: apt-get install wrk)."


@dataclass(frozen=True)
class Measured:
    """What a load came to.

    Attributes:
        answers: how many, refusals left out.
        seconds: in which.
        p50_ms: the latency that half of all answers did not exceed, as wrk tells it, refusals included.
        p99_ms: the same of 99 percent.
        errors: answers with a status of 400 and above, and failures of the connection.

    """

    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def throughput(self) -> float:
        """Answers a second, refusals left out."""
        return self.answers / self.seconds

    @classmethod
    def of(cls, printed: str) -> Self:
        """Read what wrk has printed; raises CommandError when the line of post.lua is not there."""
        try:
            found = json.loads(printed.rstrip().rpartition("\n")[2])
            answered = found["requests"] - found["status"]
            errors = found["status"] + found["sockets"]
            return cls(answered, found["seconds"], found["p50_ms"], found["p99_ms"], errors)
        except (ValueError, TypeError, KeyError) as error:
            raise CommandError(f"wrk printed no result: {printed.strip()[-300:]}") from error


def find() -> str:
    """Return where wrk is; raises CommandError, with how to install it, when it is nowhere."""
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
    """Put a load on a URL, whole seconds long (rounded up); wrk takes one core at most.

    Args:
        url: of an HTTP server.
        callers: requests under way at once.
        seconds: how long.
        body: the file that every request posts; None: they get.
        headers: of every request that posts, such as Content-Type.
        stopping: ends the load when it is set; what was answered until then is returned.

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
                process.send_signal(signal.SIGINT)  # upon which it prints what it has
            try:
                printed, _ = process.communicate(timeout=LOOK_S)
                break
            except subprocess.TimeoutExpired:
                continue
    finally:
        process.kill()
        process.wait()
    return Measured.of(printed)
