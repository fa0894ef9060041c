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

import structlog
from uvicorn.config import STARTUP_FAILURE

from app.server import Server, config
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
        while not (numbers := self._signals()):
            if any(self._bury(worker) == STARTUP_FAILURE for worker in self._dead()):
                logger.error("a worker cannot start, so the gateway ends")
                self._stop(signal.SIGTERM)
                return STARTUP_FAILURE
            missing = len(self._workers) < self._settings.workers
            if missing and time.monotonic() >= self._start_at:
                self._workers.append(Worker(self._listener))
                continue
            self._files.merge([worker.process.pid or 0 for worker in self._workers])
            self._wait(LOOK_S)
            for worker in [worker for worker in self._workers if worker.is_silent()]:
                logger.error("a worker hangs and is killed", worker=worker.process.pid)
                worker.process.kill()
                worker.process.join(LOOK_S)
        self._stop(numbers[0])
        return 0

    def _dead(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.process.is_alive()]

    def _bury(self, worker: Worker) -> int:
        """Forget a worker that has ended, and return its exit code."""
        code, pid = worker.process.exitcode or 0, worker.process.pid or 0
        logger.warning("a worker ended", worker=pid, exit_code=code)
        self._workers.remove(worker)
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
        """Pass a signal on to the workers and wait until they have ended; kill those that do not."""
        self._listener.close()
        numbers = [number]  # then SIGTERM, as a worker that starts does not take SIGINT yet
        deadline = time.monotonic() + self._settings.drain_delay_s + self._settings.drain_timeout_s + GRACE_S
        while self._workers and time.monotonic() < deadline:
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
    settings = Settings()
    threading.Thread(target=_follow_master, args=(beats, settings.drain_timeout_s + GRACE_S), daemon=True).start()
    Server(config(settings)).run([listener])


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
