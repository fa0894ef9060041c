"""Processes that decode what a thread could not be stopped from decoding.

    thread --the file's bytes--> process: decode, upright, fit --the small result--> thread
                                 └ ended by the deadline, by its CPU time or by its memory

Each process serves one picture at a time and stays for the next. It is started by exec, as a fork of a process with
threads may hang, and when it is first needed; whoever cannot wait for its start leaves it to the next picture. What it
answers is numbers and text, never pickled objects: it may have been taken over by what it decoded.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from stages.serving import RefusalError

CPU_S: Final = 5
"""For one picture, all threads together. The most expensive sound ones, of 50 megapixels, take 2 (docs/decisions)."""
BYTES_PER_PIXEL, SPARE_BYTES = 24, 200_000_000
"""Memory for one picture of the most pixels: WebP's decoder alone holds its canvas twice, beside Pillow's picture."""
MAX_ANSWER: Final = 1 << 30
MAX_WAIT_S: Final = 3_600  # a request has no longer
END_S: Final = 1  # for a process that has closed its socket to end by itself, which shows why it did
START_S: Final = 60  # after which a process that is not ready is given up
READY: Final = b"ready"

_PR_SET_PDEATHSIG: Final = 1


class Process:
    """One process that runs `python -m <module>` and answers messages over a socket, which is its standard input."""

    def __init__(self, module: str, greeting: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - our own command line
                [_python(), "-I", "-m", module],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libtiff and others write what strangers send
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
            self._connection = Connection(ours.detach())
        self._begun = time.monotonic()
        self._is_ready = False
        self._is_late = False
        self._connection.send_bytes(greeting)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def start(self, deadline: float) -> bool:
        """Wait until it is ready for messages; return whether it is by `deadline`, in seconds of time.monotonic.

        Raises:
            EOFError, OSError: when the process has ended, or takes longer than `START_S`.

        """
        if not self._is_ready and self._connection.poll(_left(deadline)):
            self._connection.recv_bytes(len(READY))
            self._is_ready = True
        if not self._is_ready and time.monotonic() > self._begun + START_S:
            raise EOFError
        return self._is_ready

    def ask(self, message: bytes, deadline: float) -> bytes:
        """Return the answer to a message.

        Raises:
            TimeoutError: when it has not come by `deadline`, in seconds of time.monotonic; the process is killed then.
            EOFError, OSError: when the process has ended.

        """
        timer = threading.Timer(_left(deadline), self._give_up)
        timer.start()
        try:
            self._connection.send_bytes(message)
            answer = self._connection.recv_bytes(MAX_ANSWER)
        except (EOFError, OSError):
            if self._is_late:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
            timer.join()
        if self._is_late:
            raise TimeoutError
        return answer

    def end(self) -> int:
        """Let it end if it is about to; return its exit code, or the negative number of the signal that ended it."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        return self.kill()

    def kill(self) -> int:
        """End it at once; return as `end`."""
        self._process.kill()
        self._connection.close()
        return self._process.wait()

    def _give_up(self) -> None:
        self._is_late = True
        self._process.kill()


class Processes:
    """Starts processes as needed, and keeps those that have nothing to do; callers bound how many there are."""

    def __init__(self, start: Callable[[], Process]) -> None:
        self._start = start
        self._idle: list[Process] = []
        self._lock = threading.Lock()

    def ask(self, message: bytes, deadline: float) -> bytes:
        """Return a process's answer.

        Raises:
            RefusalError: `deadline_exceeded`; `image_too_large` or `image_undecodable` when a signal has ended the
                process, `backend_error` when it has failed by itself or did not start.

        """
        process = self._take() or self._start()
        try:
            answer = _asked(process, message, deadline)
        except BaseException:
            process.kill()
            raise
        with self._lock:
            self._idle.append(process)
        if answer is None:
            raise RefusalError("deadline_exceeded", "The process that decodes did not start in time.")
        return answer

    def _take(self) -> Process | None:
        """Return one that has nothing to do, and has not ended meanwhile."""
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_alive:
                    return process
                process.kill()
        return None

    def close(self) -> None:
        """End those that have nothing to do."""
        with self._lock:
            while self._idle:
                self._idle.pop().kill()


def _asked(process: Process, message: bytes, deadline: float) -> bytes | None:
    """Return a process's answer; None when it is not ready for messages by `deadline`. Raises as `Processes.ask`."""
    try:
        if not process.start(deadline):
            return None
    except (EOFError, OSError):
        raise RefusalError("backend_error", "the process that decodes did not start") from None
    try:
        return process.ask(message, deadline)
    except TimeoutError:
        raise RefusalError("deadline_exceeded", "The image was not decoded in time.") from None
    except (EOFError, OSError):
        raise _ended(process.end()) from None


def _left(deadline: float) -> float:
    """Return the seconds until a deadline, as far as anyone may wait."""
    return max(0.0, min(deadline - time.monotonic(), MAX_WAIT_S))


def _ended(code: int) -> RefusalError:
    """Return whose fault it is that a process has ended with this code."""
    if code >= 0:
        return RefusalError("backend_error", "the process that decodes has failed")
    if code in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE):
        return RefusalError("image_undecodable", "The image is damaged: its decoder crashed.")
    sentence = f"The image takes more than {CPU_S} s, or more memory, to decode than there is for one."
    return RefusalError("image_too_large", sentence)


def _python() -> str:
    """Return the Python of this environment; inside a stub, `sys.executable` may name the stub, or nothing."""
    name = Path(sys.executable or "").name
    return sys.executable if name.startswith("python") else shutil.which("python3") or "python3"


def serve(answer: Callable[[bytes], bytes], connection: Connection, max_pixels: int) -> None:
    """Answer messages until the other side closes or dies; what a process does all its life."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    bytes_now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    bytes_most = bytes_now + SPARE_BYTES + BYTES_PER_PIXEL * max_pixels
    _limit(resource.RLIMIT_AS, bytes_most)
    connection.send_bytes(READY)
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        # The kernel ends the process when its CPU time, all threads together, has reached this.
        seconds = int(used.ru_utime + used.ru_stime) + CPU_S
        _limit(resource.RLIMIT_CPU, seconds)
        connection.send_bytes(answer(message))


def _limit(kind: int, most: int) -> None:
    """Lower a limit of this process; one that it was given stays if it is lower."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def pack(head: Mapping[str, object], body: bytes = b"") -> bytes:
    """Return a message: one line of JSON, and bytes."""
    return json.dumps(head).encode() + b"\n" + body


def unpack(message: bytes) -> tuple[dict[str, object], bytes]:
    """Return what `pack` was given."""
    head, _, body = message.partition(b"\n")
    read: dict[str, object] = json.loads(head)
    return read, body
