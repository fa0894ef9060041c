"""A real stack on free ports: the one launcher of benchmarks and tests, and by the tests' fixtures of notebooks.

    models, settings --> modelctl serve + python -m app, each a process group of its own --readyz--> url, address, logs

Triton's supervisor leads one group and starts tritonserver with its stubs in another, which only it may end.
`modelctl up` (modelctl/embedded/stack.py) is the command for people: in the foreground, on the configured ports.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from dotenv import dotenv_values

from modelctl.bench.fresh import Stopped
from modelctl.embedded import control, processes
from modelctl.embedded.state import take_state
from modelctl.errors import CommandError

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_S, STOP_S = 120, 20
SHOWN_CHARACTERS = 3000
PORTS_EACH = 1500
QUIET = {"GATEWAY_LOG_LEVEL": "warning"}
"""Settings of a gateway that is measured without a line for every request."""


def _ports() -> Iterator[int]:
    """Yield ports for this process alone, below those that Linux gives to clients, as they could be taken meanwhile."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
    first = 12_000 + worker * PORTS_EACH
    begun = os.getpid() * 8 % PORTS_EACH  # another run beside this one begins elsewhere
    while True:
        for number in range(PORTS_EACH):
            yield first + (begun + number) % PORTS_EACH


PORTS = _ports()


def free_port() -> int:
    """Return a port that nobody listens on, and that no other worker of a run of tests is given."""
    for port in PORTS:
        with socket.socket() as one, suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((HOST, port))
            break
    return port


@dataclass
class Stack:
    """One Triton with its supervisor, and one gateway before it. As a context manager it is started, then stopped.

    Attributes:
        folder: a folder of its own: the logs triton.out and gateway.out, and Triton's `state`.
        models: the model repository.
        backends: our Python-based backends.
        settings: more environment variables, such as GATEWAY_WORKERS.
        serve_options: more words for `modelctl serve`, such as --model and names.
        key: the file with the control key; None when `serve` makes it in `state`.
        stopping: waiting ends, by Stopped, when it is set.

    """

    folder: Path
    models: Path
    backends: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    serve_options: Sequence[str] = ()
    key: Path | None = None
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.port, self.grpc, self.metrics = (free_port() for _ in range(3))
        self.url = f"http://{HOST}:{self.port}"
        self.address = f"{HOST}:{self.grpc}"
        """Where Triton's gRPC listens."""
        self.state = self.folder / "state"
        self.triton: subprocess.Popen[bytes] | None = None
        self.gateway: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """Return the environment of both processes, and of commands that work on this stack."""
        # The settings of whoever starts it are for another gateway: empty stands for the default, whatever .env says.
        names = {*os.environ, *dotenv_values(ROOT / ".env")}
        others = (name for name in names if name.startswith("GATEWAY_") or name not in os.environ)
        return {
            **os.environ,
            **dict.fromkeys(others, ""),
            "GATEWAY_PORT": str(self.port),
            "TRITON_GRPC_PORT": str(self.grpc),
            "TRITON_METRICS_PORT": str(self.metrics),
            control.VARIABLE: str(self.key or self.state.resolve() / control.FILE),
            **self.settings,
        }

    def start(self) -> None:
        """Start both and wait until the gateway is ready."""
        self.start_triton()
        self.start_gateway()
        self.wait_ready()

    def start_triton(self) -> None:
        """Start Triton under its supervisor."""
        options = ["--models", str(self.models), "--backends", str(self.backends), "--state", str(self.state)]
        key = {} if self.key else {control.VARIABLE: ""}  # it makes one
        self.triton = self._start("triton", key, "modelctl", "serve", *options, *self.serve_options)

    def start_gateway(self) -> None:
        """Start the gateway."""
        self.gateway = self._start("gateway", {}, "app")

    def _start(self, name: str, variables: Mapping[str, str], *module: str) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log(name).open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", *module],
                cwd=ROOT,
                env={**self.environment(), **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=processes.dies_with_parent(),
            )

    def wait_ready(self, seconds: float = START_S) -> float:
        """Wait until /readyz answers 200; return after how many seconds.

        Raises:
            CommandError: when a process ends or the time is over, with the ends of the logs.
            Stopped: when `stopping` is set.

        """
        begun = time.monotonic()
        while True:
            self.check()
            answer = self._readiness()
            if not answer:
                return time.monotonic() - begun
            if time.monotonic() - begun > seconds:
                ends = "\n".join(self._end(name) for name in ("triton", "gateway") if self._log(name).exists())
                raise CommandError(f"The gateway did not become ready in {seconds:g} s: {answer}\n{ends}")
            self.stopping.wait(0.1)

    def _readiness(self) -> str:
        """Return what /readyz answers, empty when it is ready."""
        with closing(http.client.HTTPConnection(HOST, self.port, timeout=10)) as connection:
            try:
                connection.request("GET", "/readyz")
                response = connection.getresponse()
                text = response.read().decode("utf-8", "replace")
            except (OSError, http.client.HTTPException) as error:
                return repr(error)
        return "" if response.status == http.client.OK else f"{response.status} {text}"

    def check(self) -> None:
        """Raise Stopped when told to stop, and CommandError when a process has ended by itself."""
        if self.stopping.is_set():
            raise Stopped
        for name, process in (("triton", self.triton), ("gateway", self.gateway)):
            if process is not None and process.poll() is not None:
                raise CommandError(f"{name} ended by itself: {self._end(name)}")

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.out"

    def _end(self, name: str) -> str:
        return self._log(name).read_text(errors="replace").strip()[-SHOWN_CHARACTERS:]

    def tell_to_stop(self) -> None:
        """Ask both to end."""
        for process in (self.gateway, self.triton):
            if process is not None and process.poll() is None:
                process.terminate()

    def stop(self) -> list[str]:
        """Stop both, and clear what a killed supervisor leaves; return which had to be killed."""
        self.tell_to_stop()
        killed = []
        for name, process in (("gateway", self.gateway), ("triton", self.triton)):
            if process is None:
                continue
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                killed.append(name)
                processes.kill_group(process.pid)
                process.wait()
        if self.triton is not None and self.triton.returncode == -signal.SIGKILL:
            with suppress(CommandError):  # what Triton leaves could not be cleared
                take_state(self.state).close()
        return killed

    @property
    def gateway_group(self) -> int:
        """The process group of the gateway; its leader's pid too."""
        assert self.gateway is not None  # noqa: S101 - it was started
        return self.gateway.pid

    @property
    def triton_group(self) -> int:
        """The process group of tritonserver and its stubs, which is its leader's pid; a restart changes it."""
        return int(json.loads((self.state / "server.json").read_text())["group"])

    @property
    def groups(self) -> tuple[int, ...]:
        """All process groups: the gateway's, Triton's, and that of Triton's supervisor."""
        assert self.triton is not None  # noqa: S101 - it was started
        return self.gateway_group, self.triton_group, self.triton.pid
