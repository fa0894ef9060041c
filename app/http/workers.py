"""Several processes behind one port: a master starts them, replaces those that die, and ends them.

    master: binds the port --spawns--> workers: accept and serve
       |  <------------- beats -------------  |
       +-- told to stop: tells them           +-- master gone: no new connections, finish what runs, end

A worker accepts nothing before it is ready, so a new one never answers for what it has not read yet. One that ends for
whatever reason is replaced, and its metrics are kept (`app.telemetry.worker_files`).
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
"""A worker that has not beaten for so many looks, 10 s, hangs; before its first beat, 2 min, as it imports meanwhile.
Counted, so that a machine may be paused.
"""
FAILED_S = 1.0
"""After a worker that failed by itself, the next one starts so much later."""
GRACE_S = 2.0
"""What ends takes so much longer than its drain at most; then it is killed."""

logger = structlog.get_logger(__name__)


def serve(settings: Settings) -> int:
    """Serve by `settings.workers` processes until SIGTERM, SIGINT or SIGHUP; return the exit code."""
    with _signals() as told, WorkerFiles.made() as files:
        listener = config(settings).bind_socket()
        # It changes which signals are blocked when it starts, so it must not start between two lines of ours.
        resource_tracker.ensure_running()
        return Master(settings, listener, files, told).run()


class Worker:
    """One process that serves."""

    def __init__(self, listener: socket.socket) -> None:
        self._beats, beats = SPAWN.Pipe(duplex=False)
        self.process = SPAWN.Process(target=work, args=(listener, beats))
        # Ctrl-C reaches all processes of a terminal. The worker takes it when it has handlers: until then Python would
        # print where it was interrupted.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        beats.close()
        self._silent, self._most = 0, START_LOOKS

    def is_silent(self) -> bool:
        """Tell whether the worker hangs; called once a look."""
        self._silent += 1
        with suppress(EOFError, OSError):
            while self._beats.poll():
                self._beats.recv_bytes()
                self._silent, self._most = 0, SILENT_LOOKS
        return self._silent > self._most

    def tell(self, number: int) -> None:
        """Send a signal."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)


class Master:
    """Keeps the workers.

    Args:
        told: readable when a signal has come; its bytes are the signals' numbers.

    """

    def __init__(self, settings: Settings, listener: socket.socket, files: WorkerFiles, told: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._files = files
        self._told = told
        self._workers: list[Worker] = []
        self._start_at = 0.0

    def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        number = int(signal.SIGTERM)
        try:
            number, code = self._keep_workers()
        finally:  # also after a fault of ours: workers that are left alone would serve on
            self._stop(number)
        return code

    def _keep_workers(self) -> tuple[int, int]:
        """Start and replace workers until the gateway has to end; return the signal to pass on and the exit code."""
        while not (numbers := self._signals()):
            if any(self._bury(worker) == STARTUP_FAILURE for worker in self._dead()):
                logger.error("a worker cannot start, so the gateway ends")
                return signal.SIGTERM, STARTUP_FAILURE
            missing = len(self._workers) < self._settings.workers
            if missing and time.monotonic() >= self._start_at:
                self._start_worker()
                continue
            with _logged("metrics of workers that ended are not merged yet"):
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
        with _logged("metrics of a worker that ended are kept"):
            self._files.forget(pid)
        if code > 0:
            self._start_at = time.monotonic() + FAILED_S
        return code

    def _wait(self, seconds: float) -> None:
        """Wait until a worker ends or a signal comes."""
        ready = wait([self._told, *(worker.process.sentinel for worker in self._workers)], seconds)
        for worker in self._workers:
            if worker.process.sentinel in ready:
                worker.process.join(seconds)  # it closes its files a moment before it is gone

    def _signals(self) -> list[int]:
        with suppress(BlockingIOError):
            return list(self._told.recv(64))
        return []

    def _stop(self, number: int) -> None:
        """Pass a signal on and wait until the workers have ended; kill those that do not, all at a second Ctrl-C."""
        self._listener.close()
        numbers = [number]  # then SIGTERM, as a worker that starts does not take SIGINT yet
        interrupts = 0
        deadline = time.monotonic() + self._settings.drain_delay_s + self._settings.drain_timeout_s + GRACE_S
        while self._workers and interrupts < 2 and time.monotonic() < deadline:
            interrupts += numbers.count(signal.SIGINT)
            for worker in self._workers:
                for one in numbers:
                    worker.tell(signal.SIGINT if one == signal.SIGINT else signal.SIGTERM)
            self._wait(LOOK_S)
            self._workers = [worker for worker in self._workers if worker.process.is_alive()]
            numbers = self._signals() or [signal.SIGTERM]
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()


def work(listener: socket.socket, beats: Connection) -> None:
    """Serve as a worker until told to stop, or until the master is gone."""
    _keep_files_from_children()
    settings = Settings()
    threading.Thread(target=_follow_master, args=(beats, settings.drain_timeout_s + GRACE_S), daemon=True).start()
    WorkerServer(config(settings)).run([listener])


class WorkerServer(Server):
    """Serves as a worker. It gets each Ctrl-C from the terminal and from the master; uvicorn takes two for a hurry."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop serving; finish what runs, however often it is told."""
        super().handle_exit(signal.SIGTERM if self.should_exit else sig, frame)


def _follow_master(beats: Connection, seconds: float) -> None:
    """Beat while the master lives. Then stop as at Ctrl-C, so that the port is free at once, within so many seconds."""
    master = multiprocessing.parent_process()
    while master is not None and master.is_alive():
        with suppress(OSError):
            beats.send_bytes(b".")
        master.join(BEAT_S)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def _keep_files_from_children() -> None:
    """Let no process that a worker starts inherit what the worker has: it would hold the port after the worker."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2:  # beside the standard ones
            with suppress(OSError):  # the listing's own is closed
                os.set_inheritable(number, False)


@contextmanager
def _logged(event: str) -> Iterator[None]:
    """Log an error of the system, which may pass, and go on."""
    try:
        yield
    except OSError as error:
        logger.error(event, reason=str(error))


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Give a socket that tells which signals have come, as bytes; they do nothing else."""
    told, telling = socket.socketpair()
    with told, telling:
        told.setblocking(False)
        telling.setblocking(False)
        signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
                signal.signal(number, lambda *_: None)
        try:
            yield told
        finally:
            signal.set_wakeup_fd(-1)
