"""One run of tritonserver: its command line, its log, its process group and the shared memory it leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from modelctl.console import say
from modelctl.embedded import control, processes
from modelctl.embedded.installation import Installation
from modelctl.embedded.log import Log
from modelctl.embedded.ports import Ports
from modelctl.embedded.state import RECORD, Record, StateFolder
from modelctl.errors import CommandError

STOP_S = 5
# Triton reports the lack of a GPU as errors; here it is normal.
HARMLESS = ("CUDA", "Cuda", "NVML", "DCGM", "unable to create stream", "pinned")
IMPORTANT = re.compile(r"^(?:[EW]\d{4} |error|Error)")
LOADED = re.compile(r"successfully loaded '(.+)'")
STAMP = re.compile(r'^[EW]\d{4} \S+ \d+ \S+\] "?|"$')


@dataclass(frozen=True)
class Launch:
    """How Triton is started; the supervisor sets `load` and `variant` at each start.

    Attributes:
        key: the key that callers of the control protocols must send; empty for none, which needs a loopback `host`.

    """

    installation: Installation
    models: Path
    backends: Path
    state: Path
    host: str
    ports: Ports
    extra: tuple[str, ...]
    load: tuple[str, ...] = ()
    variant: str | None = None
    key: str = field(default_factory=control.new, repr=False)

    def command(self, backend_directory: Path) -> list[str]:
        """Return the command line; raises CommandError when other machines could load models without a key."""
        if not self.key and not control.is_loopback(self.host):
            raise CommandError(f"Triton's control protocols are not opened on {self.host} without a key.")
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
            # A web page in a browser could post to HTTP, and loading a model runs its code (docs/decisions/0010).
            "--allow-http=false",
            *([control.option(self.key)] if self.key else []),
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
    """A running tritonserver with its stubs, in one process group.

    Args:
        launch: how it is started.
        state: the folder for its log, and for the record of what to clean up after it.
        backend_directory: what `Installation.backend_directory` returned; None to call it now.

    """

    def __init__(self, launch: Launch, state: StateFolder, backend_directory: Path | None = None) -> None:
        self._state = state
        self._recorded = True
        self._regions: set[str] = set()
        # Regions of other servers, and regions that `stubs` saw for the first time at its last call.
        self._foreign: set[str] = set()
        self._new: set[str] = set()
        self.loaded: set[str] = set()
        """Models that the log reports as loaded: Triton answers no call before it has tried to load all."""
        directory = backend_directory or launch.installation.backend_directory(launch.backends, state.path)
        command = launch.command(directory)
        self._process = subprocess.Popen(  # noqa: S603 - our own command line
            command,
            env=launch.installation.environment(dict(os.environ)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=processes.dies_with_parent(),
        )
        self.group = self._process.pid
        self._log = threading.Thread(target=self._copy_log, daemon=True)
        self._log.start()
        self._write_record()

    def is_alive(self) -> bool:
        """Tell whether the server's process runs."""
        return self._process.poll() is None

    def was_killed(self) -> bool:
        """Tell whether a signal ended the server: one that was sent, or that of its own abort."""
        return (self._process.poll() or 0) < 0

    def stubs(self) -> list[processes.Stub]:
        """Return the living stubs, and remember their shared memory."""
        found = processes.stubs(self.group)
        regions = {stub.region for stub in found}
        # The server maps the shared memory of a stub before the stub starts; such a region is in use although no stub
        # holds it. The server's memory map is long, so it is read only when there are new regions.
        if new := processes.regions() - self._foreign - self._regions:
            regions |= processes.mapped_regions(self.group)
            self._foreign |= new & self._new - regions  # only when seen twice: a region exists before it is mapped
        self._new = new
        if not regions <= self._regions or not self._recorded:
            self._regions |= regions
            self._write_record()
        return found

    def sweep(self) -> None:
        """Remove the shared memory of stubs that are gone."""
        processes.sweep(self._regions)

    def stop(self) -> None:
        """Ask the server to stop, kill it after STOP_S, and clean up."""
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
        self._state.remove(RECORD)

    def _write_record(self) -> None:
        """Write the record of what to clean up after this server; when that fails, `stubs` tries again."""
        record = Record(self.group, processes.start_time(self.group), tuple(self._regions))
        try:
            self._state.write(RECORD, record.text())
            self._recorded = True
        except OSError as error:
            if self._recorded:
                path = self._state.path / RECORD
                say(
                    f"{path} cannot be written ({error.strerror}): "
                    "if this supervisor is killed, Triton's shared memory is left behind."
                )
            self._recorded = False

    def _copy_log(self) -> None:
        """Copy the server's output to the log file, and its errors and warnings to the console."""
        log = Log(self._state)
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        with self._process.stdout as lines:
            for raw in lines:
                line = raw.decode("utf-8", "replace").rstrip()
                log.write(line)
                if loaded := LOADED.search(line):
                    self.loaded.add(loaded[1])
                if IMPORTANT.match(line) and not any(word in line for word in HARMLESS):
                    say(f"triton: {STAMP.sub('', line)[:400]}")
        log.close()


def on_stop(function: Callable[[], None]) -> None:
    """Call a function when this process is told to stop: by Ctrl-C, by SIGTERM, or by closing its terminal.

    A thread calls it, not the signal handler: that may interrupt `Event.wait`, and `Event.set` would then wait for ever
    for the lock that `wait` holds.
    """
    reading, writing = os.pipe()

    def wait() -> None:
        while os.read(reading, 1):
            function()

    threading.Thread(target=wait, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, lambda *_: os.write(writing, b"\0"))
