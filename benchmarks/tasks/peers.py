"""The peers of the gateway as processes: set up once in an environment of their own, started, measured, stopped.

    benchmarks/peers/<peer>.txt --uv or pip--> <state>/peers/<peer>-<hash>/ --PEER_FACTS, PEER_PORT--> a server

Peers that are not being measured are halted (SIGSTOP), so that they take no CPU time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import packages
from benchmarks.stack import HOST, free_port
from benchmarks.tasks.workload import Workload, same
from modelctl.bench.fresh import Stopped
from modelctl.console import say
from modelctl.embedded import processes
from modelctl.errors import CommandError

FOLDER = Path("benchmarks/peers")
START_S, STOP_S, SET_UP_S = 180, 5, 900
CHECKS, CONCURRENT_CHECKS = 16, 8
QUIET = {"BENTOML_DO_NOT_TRACK": "true"}


@dataclass(frozen=True)
class Peer:
    """One peer.

    Attributes:
        words: its command line, after `python`.
        lock: the lock file of its environment, in benchmarks/peers; empty when it runs in ours.

    """

    name: str
    words: tuple[str, ...]
    lock: str = ""

    def python(self, state: Path) -> str:
        """Return its interpreter; make its environment below `state` first, if it is missing.

        Raises:
            CommandError: when its packages cannot be installed.

        """
        if not self.lock:
            return sys.executable
        lock = FOLDER / self.lock
        wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
        folder = state / "peers" / f"{self.name}-{wanted}"
        python = str((folder / "bin" / "python").absolute())
        if not (folder / "installed").exists():
            say(f"Setting up {self.name}: {lock}")
            shutil.rmtree(folder, ignore_errors=True)
            packages.run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
            packages.install(lock, python=python)
            (folder / "installed").touch()
        return python


PEERS = {
    peer.name: peer
    for peer in (
        Peer("proxy", ("-m", "benchmarks.peers.proxy")),
        Peer("fastapi", ("-m", "benchmarks.peers.in_process")),
        Peer("litserve", ("-m", "benchmarks.peers.litserve_server"), "litserve.txt"),
        Peer("bentoml", ("-m", "bentoml", "serve", "benchmarks.peers.bento_service:Tasks"), "bentoml.txt"),
    )
}


class Process:
    """A peer's process with its descendants."""

    def __init__(self, name: str, words: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        self._groups: set[int] = set()
        with log.open("wb") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                words,
                env={**os.environ, **QUIET, **environment, "PYTHONPATH": str(Path.cwd())},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if name.startswith("bare") else out,
                stderr=out,
                text=True,
                start_new_session=True,
                preexec_fn=processes.dies_with_parent(),
            )

    @property
    def groups(self) -> tuple[int, ...]:
        """Its process group and the groups that its descendants made."""
        self._groups |= processes.groups(self._process.pid)
        return tuple(self._groups)

    def send(self, value: object) -> None:
        """Send it one line of JSON."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()

    def receive(self) -> Any:
        """Read one line of JSON from it; raises CommandError when it has ended instead."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise CommandError(f"{self.name} ended by itself: {self._last_words()}")
        return json.loads(line)

    def halt(self) -> None:
        """Halt it, so that it takes no CPU time."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again after `halt`."""
        self._signal(signal.SIGCONT)

    def check(self, stopping: threading.Event) -> None:
        """Raise Stopped when told to stop, and CommandError when it has ended by itself."""
        if stopping.is_set():
            raise Stopped
        if self._process.poll() is not None:
            raise CommandError(f"{self.name} ended by itself: {self._last_words()}")

    def ask_to_stop(self) -> None:
        """Ask it to stop, without waiting."""
        self._process.terminate()
        self.resume()

    def stop(self) -> None:
        """Ask it to stop, then kill its remaining processes."""
        groups = self.groups
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        for group in {*groups, self._process.pid}:
            processes.kill_group(group)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _signal(self, number: signal.Signals) -> None:
        for group in self.groups:
            with suppress(ProcessLookupError):
                os.killpg(group, number)

    def _last_words(self) -> str:
        return self._log.read_text("utf-8", "replace").strip()[-500:] or f"it wrote nothing to {self._log}."


class Running(Process):
    """A peer that serves."""

    def __init__(self, peer: Peer, state: Path, facts: Path) -> None:
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        words, environment = [peer.python(state), *peer.words], {"PEER_FACTS": str(facts), "PEER_PORT": str(port)}
        if "serve" in peer.words:  # BentoML's own command
            words += ["--host", HOST, "--port", str(port)]
            environment["BENTOML_HOME"] = str((state / "bentoml").absolute())
        super().__init__(peer.name, words, environment, state / f"{peer.name}.log")

    def wait(self, workloads: list[Workload], answers: list[Any], stopping: threading.Event) -> None:
        """Wait until it gives the same answers as the gateway, to concurrent callers too.

        Raises:
            CommandError: when its answer differs, or does not come in time.
            Stopped: when told to stop meanwhile.

        """
        deadline = time.monotonic() + START_S
        for workload, wanted in zip(workloads, answers, strict=True):
            while (answer := ask(self.url, workload)) is None:
                self.check(stopping)
                if time.monotonic() > deadline:
                    raise CommandError(f"{self.name} did not answer in {START_S} s: {self._last_words()}")
                stopping.wait(0.2)
            with ThreadPoolExecutor(CONCURRENT_CHECKS) as pool:
                rest = pool.map(lambda _, one=workload: ask(self.url, one), range(CHECKS))
                for one in (answer, *rest):
                    if not same(one, wanted):
                        raise CommandError(
                            f"{self.name} answers {workload.name} differently from the gateway: "
                            f"{json.dumps(one)[:300]} instead of {json.dumps(wanted)[:300]}"
                        )
        self.check(stopping)


def ask(url: str, workload: Workload) -> Any:
    """Return a server's answer to one request; None when it refuses or does not answer."""
    request = urllib.request.Request(f"{url}{workload.path}", workload.body.read_bytes(), dict(workload.headers))  # noqa: S310
    try:
        # Whatever proxy the environment names for the world outside.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
            return json.loads(response.read())
    except (OSError, urllib.error.URLError, ValueError):
        return None
