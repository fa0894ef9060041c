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
# A machine without a GPU is normal here; Triton calls it errors.
HARMLESS = ("CUDA", "Cuda", "NVML", "DCGM", "unable to create stream", "pinned")
TELLING = re.compile(r"^(?:[EW]\d{4} |error|Error)")
LOADED = re.compile(r"successfully loaded '(.+)'")
STAMP = re.compile(r'^[EW]\d{4} \S+ \d+ \S+\] "?|"$')


@dataclass(frozen=True)
class Launch:
    """Everything that decides how Triton is started; `load` and `variant` are decided anew at each start.

    Attributes:
        key: what callers of the control protocols must know; empty for no such protection, on loopback only.

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
        """Return the command line; raises CommandError when everybody could load models."""
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
            # A page in a browser can post to HTTP, and to load a model is to run its code (docs/decisions/0010).
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
        state: keeps its log, and the record of what must be cleared after it.
        backend_directory: what `Installation.backend_directory` has put together; None to do that now.

    """

    def __init__(self, launch: Launch, state: StateFolder, backend_directory: Path | None = None) -> None:
        self._state = state
        self._recorded = True
        self._regions: set[str] = set()
        # Of the regions of this machine: what other servers have, and what was not there at the look before.
        self._foreign: set[str] = set()
        self._new: set[str] = set()
        self.loaded: set[str] = set()
        """The models that the log has called loaded: Triton answers no question before it has loaded all."""
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
        """Tell whether a signal has ended it: somebody's, or that of its own abort."""
        return (self._process.poll() or 0) < 0

    def stubs(self) -> list[processes.Stub]:
        """Return the living stubs, and remember their shared memory."""
        found = processes.stubs(self.group)
        regions = {stub.region for stub in found}
        # Those of stubs to come are mapped by the server only. Its map is long: it is read for what is new here.
        if new := processes.regions() - self._foreign - self._regions:
            regions |= processes.mapped_regions(self.group)
            self._foreign |= new & self._new - regions  # seen twice, as a region is there before it is mapped
        self._new = new
        if not regions <= self._regions or not self._recorded:
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
        self._state.remove(RECORD)

    def _write_record(self) -> None:
        """Write what must be cleared after this server; where that fails, `stubs` tries again."""
        record = Record(self.group, processes.start_time(self.group), tuple(self._regions))
        try:
            self._state.write(RECORD, record.text())
            self._recorded = True
        except OSError as error:
            if self._recorded:
                path = self._state.path / RECORD
                say(
                    f"{path} cannot be written ({error.strerror}): if this supervisor is killed, Triton's memory stays."
                )
            self._recorded = False

    def _copy_log(self) -> None:
        """Copy the server's output to the log file, and what an operator must see to the console."""
        log = Log(self._state)
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        with self._process.stdout as lines:
            for raw in lines:
                line = raw.decode("utf-8", "replace").rstrip()
                log.write(line)
                if loaded := LOADED.search(line):
                    self.loaded.add(loaded[1])
                if TELLING.match(line) and not any(word in line for word in HARMLESS):
                    say(f"triton: {STAMP.sub('', line)[:400]}")
        log.close()


def on_stop(function: Callable[[], None]) -> None:
    """Call a function when this process is told to stop: by Ctrl-C, by SIGTERM, or by closing its terminal.

    A thread calls it. A signal handler could not: it may interrupt `Event.wait`, whose lock `Event.set` would wait for.
    """
    reading, writing = os.pipe()

    def wait() -> None:
        while os.read(reading, 1):
            function()

    threading.Thread(target=wait, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, lambda *_: os.write(writing, b"\0"))
