"""One run of tritonserver: its command line, its log, its process group and the shared memory it leaves."""

from __future__ import annotations

import fcntl
import json
import logging
import logging.handlers
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from modelctl import processes
from modelctl.errors import CommandError
from modelctl.installation import Installation

STOP_S = 5
PORTS = {"GATEWAY_PORT": 8080, "TRITON_HTTP_PORT": 8000, "TRITON_GRPC_PORT": 8001, "TRITON_METRICS_PORT": 8002}
LOG_BYTES = 20_000_000
# A machine without a GPU is normal here; Triton calls it errors.
HARMLESS = ("CUDA", "Cuda", "NVML", "DCGM", "unable to create stream", "pinned")
TELLING = re.compile(r"^(?:[EW]\d{4} |error|Error)")
LOADED = re.compile(r"successfully loaded '(.+)'")
STAMP = re.compile(r'^[EW]\d{4} \S+ \d+ \S+\] "?|"$')


@dataclass(frozen=True)
class Ports:
    """Where Triton listens."""

    http: int
    grpc: int
    metrics: int

    @classmethod
    def free(cls, host: str) -> Self:
        """Return ports that nobody listens on now."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for one in sockets:
                one.bind((host, 0))
            return cls(*(one.getsockname()[1] for one in sockets))

    def check(self, host: str) -> None:
        """Raise CommandError when one is taken: gRPC's own socket would share it with another server unnoticed."""
        ports = {"TRITON_HTTP_PORT": self.http, "TRITON_GRPC_PORT": self.grpc, "TRITON_METRICS_PORT": self.metrics}
        if len(set(ports.values())) < len(ports):
            raise CommandError(f"{', '.join(ports)} must be three different ports.")
        for variable, number in ports.items():
            check_port(host, number, variable)


def port_text(variable: str) -> str:
    """Return what the environment says of a port, else its default."""
    return os.environ.get(variable) or str(PORTS[variable])


def port(text: str, variable: str) -> int:
    """Read a port.

    Raises:
        CommandError: when it is none.

    """
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise CommandError(f"'{text}' is no port for {variable}: give a number from 1 to 65535.")
    return int(text)


def check_port(host: str, port: int, variable: str) -> None:
    """Raise CommandError when a port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Port {port} is taken ({error.strerror}): stop what listens there, or set {variable} to another."
            ) from error


@dataclass(frozen=True)
class Launch:
    """Everything that decides how Triton is started; `load` and `variant` are decided anew at each start."""

    installation: Installation
    models: Path
    backends: Path
    state: Path
    host: str
    ports: Ports
    extra: tuple[str, ...]
    load: tuple[str, ...] = ()
    variant: str | None = None

    def command(self, backend_directory: Path) -> list[str]:
        """Return the command line."""
        return [
            str(self.installation.binary),
            f"--model-repository={self.models.resolve()}",
            f"--backend-directory={backend_directory.resolve()}",
            f"--cache-directory={self.installation.cache_directory}",
            "--model-control-mode=explicit",
            "--exit-on-error=false",
            "--strict-readiness=false",
            "--disable-auto-complete-config",
            f"--exit-timeout-secs={STOP_S - 1}",
            f"--http-address={self.host}",
            f"--http-port={self.ports.http}",
            f"--grpc-address={self.host}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-address={self.host}",
            f"--metrics-port={self.ports.metrics}",
            "--grpc-http2-min-recv-ping-interval-without-data=5000",
            *(f"--load-model={name}" for name in self.load),
            *([f"--model-config-name={self.variant}"] if self.variant else []),
            *self.extra,
        ]


class Server:
    """A running tritonserver with its stubs, in one process group."""

    def __init__(self, launch: Launch) -> None:
        self._record = launch.state / "server.json"
        self._regions: set[str] = set()
        self.loaded: set[str] = set()
        """The models that the log has called loaded: Triton answers no question before it has loaded all."""
        command = launch.command(launch.installation.backend_directory(launch.backends, launch.state))
        self._process = subprocess.Popen(  # noqa: S603 - our own command line
            command,
            env=launch.installation.environment(dict(os.environ)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=processes.die_with_parent,
        )
        self.group = self._process.pid
        self._log = threading.Thread(target=self._copy_log, args=(launch.state / "triton.log",), daemon=True)
        self._log.start()
        self._write_record()

    def is_alive(self) -> bool:
        """Tell whether the server's process runs."""
        return self._process.poll() is None

    def stubs(self) -> list[processes.Stub]:
        """Return the living stubs, and remember their shared memory."""
        found = processes.stubs(self.group)
        # Those of stubs to come are mapped by the server only.
        regions = {stub.region for stub in found} | processes.mapped_regions(self.group)
        if not regions <= self._regions:
            self._regions |= regions
            self._write_record()
        return found

    def sweep(self) -> None:
        """Remove the shared memory of stubs that are gone."""
        processes.sweep(self._regions)

    def stop(self) -> None:
        """Ask the server to stop, then make sure of it."""
        self.stubs()
        if self.is_alive():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.clear()

    def clear(self) -> None:
        """Kill what is left of the process group and remove its shared memory."""
        processes.kill_group(self.group)
        self._process.wait()
        self._log.join(1)
        self.sweep()
        self._record.unlink(missing_ok=True)

    def _write_record(self) -> None:
        record = {"group": self.group, "start": processes.start_time(self.group), "regions": sorted(self._regions)}
        # Renamed into place, since whoever writes may be killed meanwhile.
        new = self._record.with_suffix(".new")
        new.write_text(json.dumps(record))
        new.replace(self._record)

    def _copy_log(self, path: Path) -> None:
        """Copy the server's output to the log file, and what an operator must see to the console."""
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1)
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for raw in self._process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            handler.emit(logging.LogRecord("triton", logging.INFO, "", 0, line, None, None))
            if loaded := LOADED.search(line):
                self.loaded.add(loaded[1])
            if TELLING.match(line) and not any(word in line for word in HARMLESS):
                say(f"triton: {STAMP.sub('', line)[:400]}")
        handler.close()


def take_state(state: Path) -> IO[str]:
    """Make a state folder one's own for as long as the returned file is open, and clear what its last owner left.

    Raises:
        CommandError: when another supervisor has it, or when it cannot be written.

    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "serve.lock").open("w")
    except OSError as error:
        raise CommandError(f"{state} cannot be written ({error.strerror}): give another folder by --state.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise CommandError(
            f"Another modelctl serve uses {state}: stop it, or give another folder by --state."
        ) from error
    _clear_leftovers(state)
    return lock


def _clear_leftovers(state: Path) -> None:
    """Kill and sweep what a supervisor that was itself killed has left behind."""
    try:
        record = json.loads((state / "server.json").read_text())
    except (OSError, ValueError):
        return
    group = int(record["group"])
    # The group is ours when its leader is, or, as stubs outlive their server, when a stub with our memory is in it.
    ours = processes.start_time(group) == record["start"]
    if ours or any(stub.region in record["regions"] for stub in processes.stubs(group)):
        processes.kill_group(group)
    processes.sweep(record["regions"])
    (state / "server.json").unlink()


def say(line: str) -> None:
    """Print one line of progress."""
    with suppress(OSError):  # the terminal has been closed
        print(line, file=sys.stderr, flush=True)


def on_stop(function: Callable[[], None]) -> None:
    """Call a function when this process is told to stop: by Ctrl-C, by SIGTERM, or by closing its terminal."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, lambda *_: function())
