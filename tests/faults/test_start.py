"""A gateway that is stopped while it starts, and one that starts beside a hanging Triton."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from broken import ROOT, until

Make = Callable[..., Any]
DELAYS = [number / 10 + 0.02 for number in range(20)]


@pytest.fixture(scope="module")
def nobody() -> Any:
    """Return a port that is bound and that nobody listens on: connections to it are refused."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def session(pid: int) -> list[psutil.Process]:
    """Return the living processes of a session, whatever their parents are."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_signal_ends_a_start(nobody: int, tmp_path: Path, workers: int, number: signal.Signals) -> None:
    """At each of 20 moments it ends the start in time, and leaves no traceback, process or folder."""

    def stopped_after(seconds: float) -> None:
        # Not by the launcher of stacks: the start itself is tested, down to the first line of Python.
        folder = tmp_path / str(seconds)
        folder.mkdir()
        environment = {
            **os.environ,
            "GATEWAY_PORT": "0",
            "GATEWAY_WORKERS": str(workers),
            "TRITON_GRPC_PORT": str(nobody),
            "TMPDIR": str(folder),
        }
        with (tmp_path / f"{seconds}.out").open("wb") as out:
            command = [sys.executable, "-m", "app"]
            gateway = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True
            )
        time.sleep(seconds)
        gateway.send_signal(number)
        try:
            code = gateway.wait(4)
            until(lambda: not session(gateway.pid), 2)
        finally:
            for process in session(gateway.pid):
                process.kill()
            gateway.wait()
        said = (tmp_path / f"{seconds}.out").read_text()
        # Python itself says where Ctrl-C has met it until it comes to our first line.
        if number == signal.SIGTERM or seconds > 1:
            assert code in (0, -number, 128 + number), (seconds, said)
            assert "Traceback" not in said, (seconds, said)
        assert not list(folder.iterdir()), seconds

    delays = DELAYS if number == signal.SIGTERM else DELAYS[::4]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(stopped_after, delays))


def test_a_triton_that_hangs_does_not_keep_the_gateway_from_starting(make_stack: Make) -> None:
    """It is alive within seconds, reports not ready, and the first signal ends it."""
    with socket.socket() as hangs:
        hangs.bind(("127.0.0.1", 0))
        hangs.listen()
        address = f"127.0.0.1:{hangs.getsockname()[1]}"
        gateway = make_stack((), {"GATEWAY_TRITON_URLS": address}, test_models=False)
        gateway.start_gateway()
        until(lambda: alive(gateway), 60)
        red = httpx.get(f"{gateway.url}/readyz", trust_env=False)
        assert (red.status_code, red.json()["reason"]) == (503, "Triton has not been reached yet.")
        gateway.stop()
        assert gateway.gateway.returncode == 0


def alive(gateway: Any) -> bool:
    """Return whether livez answers."""
    try:
        return httpx.get(f"{gateway.url}/livez", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
