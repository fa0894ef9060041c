"""Starts and stops the gateway and its Triton for one measurement, on free ports, as `modelctl up` starts them.

    repository, settings --> modelctl serve + python -m app, each a process group of its own --readyz--> urls, groups

Triton's supervisor leads one group; tritonserver and its stubs run in another, which only the supervisor may end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dotenv import dotenv_values

from modelctl.bench.fresh import Stopped
from modelctl.embedded import control, processes
from modelctl.embedded.ports import Ports
from modelctl.embedded.state import take_state
from modelctl.errors import CommandError

START_S, GATEWAY_STOP_S, TRITON_STOP_S = 120, 8, 12
HOST = "127.0.0.1"


@dataclass
class Stack:
    """One Triton with one gateway before it, as a context manager.

    Attributes:
        models: the model repository.
        backends: our Python-based backends.
        state: a folder for logs and the backend directory, used by this stack only.
        stopping: when set, waiting raises Stopped.
        settings: environment variables for the gateway, such as GATEWAY_WORKERS.
        serve_options: options of `modelctl serve`, such as --model and its names.
        cwd: the folder that holds the gateway's code, app/.
        ready: the path that answers once the gateway is ready; /readyz needs a default model with a canary.

    """

    models: Path
    backends: Path
    state: Path
    stopping: threading.Event
    settings: Mapping[str, str] = field(default_factory=dict)
    serve_options: Sequence[str] = ()
    cwd: Path = field(default_factory=Path.cwd)
    ready: str = "/readyz"

    def __post_init__(self) -> None:
        self.ports = Ports.free(HOST)
        self.port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.state.mkdir(parents=True, exist_ok=True)
        try:
            options = ["--models", str(self.models), "--backends", str(self.backends), "--state", str(self.state)]
            self._start("serve", "modelctl", "serve", *options, *self.serve_options)
            self._start("gateway", "app")
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The gateway's base URL."""
        return f"http://{HOST}:{self.port}"

    @property
    def grpc(self) -> str:
        """The address of Triton's gRPC, as host:port."""
        return f"{HOST}:{self.ports.grpc}"

    @property
    def gateway_group(self) -> int:
        """The process group of the gateway, which is its leader's pid."""
        return self._processes[1].pid

    @property
    def triton_group(self) -> int:
        """The process group of tritonserver and its stubs, which is its leader's pid; a restart changes it."""
        return int(json.loads((self.state / "server.json").read_text())["group"])

    @property
    def groups(self) -> tuple[int, ...]:
        """All process groups: of the gateway, of Triton and of Triton's supervisor."""
        return self.gateway_group, self.triton_group, self._processes[0].pid

    def check(self) -> None:
        """Raise Stopped when told to stop, and CommandError when a process has ended by itself."""
        if self.stopping.is_set():
            raise Stopped
        for process, name in zip(self._processes, ("serve", "gateway"), strict=False):
            if process.poll() is not None:
                log = self.state / f"{name}.log"
                raise CommandError(f"{name} ended by itself: {log.read_text(errors='replace').strip()[-500:]}")

    def stop(self) -> None:
        """Stop the gateway, then Triton's supervisor, which stops Triton and removes its shared memory."""
        for process, seconds in reversed(list(zip(self._processes, (TRITON_STOP_S, GATEWAY_STOP_S), strict=False))):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            processes.kill_group(process.pid)
            process.wait()
        if self._processes and self._processes[0].returncode == -signal.SIGKILL:
            with suppress(CommandError):  # the killed supervisor could not stop Triton and clear its memory: this does
                take_state(self.state).close()
        self._processes.clear()

    def _start(self, name: str, module: str, *arguments: str) -> None:
        environment = {
            # The user's settings for another gateway do not apply to this one.
            **os.environ,
            **{
                name: ""  # the default, whatever .env says
                for name in {*os.environ, *dotenv_values(self.cwd / ".env")}
                if name.startswith("GATEWAY_") or name == control.VARIABLE
            },
            **({} if name == "serve" else {control.VARIABLE: str(self.state.resolve() / control.FILE)}),
            "GATEWAY_LOG_LEVEL": "warning",
            "GATEWAY_HOST": HOST,
            "GATEWAY_TRITON_URLS": self.grpc,
            **self.settings,
            "GATEWAY_PORT": str(self.port),
            "TRITON_GRPC_PORT": str(self.ports.grpc),
            "TRITON_METRICS_PORT": str(self.ports.metrics),
        }
        with (self.state / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(  # noqa: S603 - our own command line
                    [sys.executable, "-m", module, *arguments],
                    cwd=self.cwd,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=processes.dies_with_parent(),
                )
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while not answers(f"{self.url}{self.ready}"):
            self.check()
            if time.monotonic() > deadline:
                raise CommandError(f"The gateway did not become ready in {START_S} s: read the logs in {self.state}.")
            self.stopping.wait(0.1)


def free_port() -> int:
    """Return a free port."""
    return Ports.free(HOST).grpc


def open_url(request: str | urllib.request.Request, timeout_s: float) -> Any:
    """Open a URL of this machine, without the proxy that the environment may name."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout_s)


def answers(url: str) -> bool:
    """Return whether a server answers a GET with a status below 400."""
    try:
        with open_url(url, 10):
            return True
    except (OSError, urllib.error.URLError):
        return False
