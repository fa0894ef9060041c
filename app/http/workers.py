"""Several processes behind one port: a master starts them, replaces those that die, and ends them.

    master: binds the port --spawns--> workers: accept and serve
       |  <------------- beats -------------  |
       +-- signal: passes it on               +-- master gone: no new connections, finish requests, end

A worker accepts no connection before it has read its models. A worker that ends, for whatever reason, is replaced, and
its counts are kept (`app.telemetry.worker_files`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import FrameType

import structlog
from uvicorn.config import STARTUP_FAILURE

from app.http.server import Server, config
from app.settings import Settings
from app.telemetry.worker_files import WorkerFiles

SPAWN = multiprocessing.get_context("spawn")
BEAT_S = 1.0
LOOK_S = 0.5
SILENT_LOOKS, START_LOOKS = 20, 240
"""A worker without a beat for this many looks hangs: 10 s; 2 min before its first beat, because it is importing.
Looks are counted instead of seconds, so that a machine may be paused.
"""
FAILED_S = 1.0
"""The pause before the next worker starts, after one that failed by itself."""
GRACE_S = 2.0
"""How much longer than its drain a worker may take to end before it is killed."""

logger = structlog.get_logger(__name__)


def serve(settings: Settings) -> int:
    """Serve by `settings.workers` processes until SIGTERM, SIGINT or SIGHUP; return the exit code."""
    with _signals() as signals, WorkerFiles.made() as files:
        listener = config(settings).bind_socket()
        # It changes which signals are blocked when it starts, so it must not start while `Worker` blocks one.
        resource_tracker.ensure_running()
        return Master(settings, listener, files, signals).run()


class Worker:
    """One process that serves, as the master sees it."""

    def __init__(self, listener: socket.socket) -> None:
        self._beats, beats = SPAWN.Pipe(duplex=False)
        self.process = SPAWN.Process(target=work, args=(listener, beats))
        # Ctrl-C reaches all processes of a terminal. It stays blocked in the worker until the worker has handlers:
        # before that, Python would print a traceback.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        beats.close()
        self._silent, self._max_silent = 0, START_LOOKS

    def is_silent(self) -> bool:
        """Return whether the worker hangs; called once per look."""
        self._silent += 1
        with suppress(EOFError, OSError):
            while self._beats.poll():
                self._beats.recv_bytes()
                self._silent, self._max_silent = 0, SILENT_LOOKS
        return self._silent > self._max_silent

    def send(self, number: int) -> None:
        """Send a signal."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)


class Master:
    """Keeps the workers.

    Args:
        signals: readable when a signal has come; its bytes are the signals' numbers.

    """

    def __init__(self, settings: Settings, listener: socket.socket, files: WorkerFiles, signals: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._files = files
        self._arrived = signals
        self._workers: list[Worker] = []
        self._start_at = 0.0

    def run(self) -> int:
        """Serve until a signal comes; return the exit code."""
        number = int(signal.SIGTERM)
        try:
            number, code = self._keep_workers()
        finally:  # after an unexpected exception too: workers without a master would serve on
            self._stop(number)
        return code

    def _keep_workers(self) -> tuple[int, int]:
        """Start and replace workers until the gateway must end; return the signal to pass on, and the exit code."""
        while not (numbers := self._signals()):
            if any(self._bury(worker) == STARTUP_FAILURE for worker in self._dead()):
                logger.error("a worker cannot start, so the gateway ends")
                return signal.SIGTERM, STARTUP_FAILURE
            missing = len(self._workers) < self._settings.workers
            if missing and time.monotonic() >= self._start_at:
                self._start_worker()
                continue
            with _logged("counts of workers that ended could not be merged yet"):
                self._files.merge([worker.process.pid or 0 for worker in self._workers])
            self._wait(LOOK_S)
            for worker in [worker for worker in self._workers if worker.is_silent()]:
                logger.error("a worker hangs and is killed", worker=worker.process.pid)
                worker.process.kill()
                worker.process.join(LOOK_S)
        return numbers[0], 0

    def _start_worker(self) -> None:
        """Start a worker; when the system lacks memory, processes or files for it, try again later."""
        self._start_at = time.monotonic() + FAILED_S
        with _logged("a worker could not be started"):
            self._workers.append(Worker(self._listener))
            self._start_at = 0.0

    def _dead(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.process.is_alive()]

    def _bury(self, worker: Worker) -> int:
        """Forget a worker that has ended, and return its exit code."""
        code, pid = worker.process.exitcode or 0, worker.process.pid or 0
        logger.warning("a worker ended", worker=pid, exit_code=code)
        self._workers.remove(worker)
        with _logged("gauges of a worker that ended could not be removed"):
            self._files.forget(pid)
        if code > 0:
            self._start_at = time.monotonic() + FAILED_S
        return code

    def _wait(self, seconds: float) -> None:
        """Wait until a worker ends or a signal comes."""
        ready = wait([self._arrived, *(worker.process.sentinel for worker in self._workers)], seconds)
        for worker in self._workers:
            if worker.process.sentinel in ready:
                worker.process.join(seconds)  # it closes its files a moment before it ends

    def _signals(self) -> list[int]:
        with suppress(BlockingIOError):
            return list(self._arrived.recv(64))
        return []

    def _stop(self, number: int) -> None:
        """Pass a signal on and wait until the workers have ended; kill those that hang, and all at a second Ctrl-C."""
        self._listener.close()
        numbers = [number]  # after the first, SIGTERM: a worker that is starting does not take SIGINT yet
        interrupts = 0
        deadline = time.monotonic() + self._settings.drain_delay_s + self._settings.drain_timeout_s + GRACE_S
        while self._workers and interrupts < 2 and time.monotonic() < deadline:
            interrupts += numbers.count(signal.SIGINT)
            for worker in self._workers:
                for one in numbers:
                    worker.send(signal.SIGINT if one == signal.SIGINT else signal.SIGTERM)
            self._wait(LOOK_S)
            self._workers = [worker for worker in self._workers if worker.process.is_alive()]
            numbers = self._signals() or [signal.SIGTERM]
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()


def work(listener: socket.socket, beats: Connection) -> None:
    """Serve as a worker until a signal comes or the master is gone."""
    _keep_files_from_children()
    settings = Settings()
    threading.Thread(target=_follow_master, args=(beats, settings.drain_timeout_s + GRACE_S), daemon=True).start()
    WorkerServer(config(settings)).run([listener])


class WorkerServer(Server):
    """Serves as a worker. It gets each Ctrl-C twice, from terminal and master: uvicorn would force a stop."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop serving; finish requests, however many signals come."""
        super().handle_exit(signal.SIGTERM if self.should_exit else sig, frame)


def _follow_master(beats: Connection, seconds: float) -> None:
    """Send beats while the master lives. Then stop as at Ctrl-C, which frees the port at once; end within `seconds`."""
    master = multiprocessing.parent_process()
    while master is not None and master.is_alive():
        with suppress(OSError):
            beats.send_bytes(b".")
        master.join(BEAT_S)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def _keep_files_from_children() -> None:
    """Keep a worker's children from inheriting its files: they would hold the port after the worker has ended."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2:  # not the standard streams
            with suppress(OSError):  # the descriptor of the listing itself is closed
                os.set_inheritable(number, False)


@contextmanager
def _logged(event: str) -> Iterator[None]:
    """Log an error of the operating system, which may be temporary, and go on."""
    try:
        yield
    except OSError as error:
        logger.error(event, reason=str(error))


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Yield a socket that receives the number of each signal as a byte; the signals do nothing else."""
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
                signal.signal(number, lambda *_: None)
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(-1)
