"""Processes that decode pictures: unlike a thread, a process can be stopped.

    thread --the file's bytes--> process: decode, turn upright, fit --the small result--> thread
                                 └ killed at the deadline or at its limit of CPU time or memory

A process decodes one picture at a time and is kept for the next. It starts when it is first needed, by exec, because a
fork of a process with threads may hang. If a request's deadline passes before its process is ready, the process is kept
for the next request. A process answers with numbers and text, never with pickled objects, because a hostile picture may
have taken it over.
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
"""CPU time for one picture, all threads together. The most expensive sound pictures, of 50 megapixels, take 2 s
(docs/decisions)."""
BYTES_PER_PIXEL, SPARE_BYTES = 24, 200_000_000
"""Memory for one picture of `max_pixels`: WebP's decoder alone holds its canvas twice, besides Pillow's picture."""
MAX_ANSWER: Final = 1 << 30
MAX_WAIT_S: Final = 3_600  # no request has a longer deadline
END_S: Final = 1  # wait for a process that closed its socket to exit by itself, because its exit code tells why
START_S: Final = 60  # a process that is not ready after this is given up
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
                stderr=subprocess.DEVNULL,  # libtiff and others print parts of the files they read
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
            self._connection = Connection(ours.detach())
        self._begun = time.monotonic()
        self._is_ready = False
        self._is_late = False
        self._connection.send_bytes(greeting)

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def start(self, deadline: float) -> bool:
        """Wait until the process is ready, at most until `deadline` in seconds of time.monotonic; return whether it is.

        Raises:
            EOFError, OSError: the process has ended, or has taken longer than `START_S`.

        """
        if not self._is_ready and self._connection.poll(_seconds_left(deadline)):
            self._connection.recv_bytes(len(READY))
            self._is_ready = True
        if not self._is_ready and time.monotonic() > self._begun + START_S:
            raise EOFError
        return self._is_ready

    def ask(self, message: bytes, deadline: float) -> bytes:
        """Return the answer to a message.

        Raises:
            TimeoutError: no answer by `deadline`, in seconds of time.monotonic; the process is killed then.
            EOFError, OSError: the process has ended.

        """
        timer = threading.Timer(_seconds_left(deadline), self._give_up)
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
        """Give the process `END_S` to exit, then kill it; return its exit code, or the negative signal number."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        return self.kill()

    def kill(self) -> int:
        """Kill the process; return the same as `end`."""
        self._process.kill()
        self._connection.close()
        return self._process.wait()

    def _give_up(self) -> None:
        self._is_late = True
        self._process.kill()


class Processes:
    """Starts processes as needed and keeps idle ones; callers limit how many run at a time."""

    def __init__(self, start: Callable[[], Process]) -> None:
        self._start = start
        self._idle: list[Process] = []
        self._lock = threading.Lock()

    def ask(self, message: bytes, deadline: float) -> bytes:
        """Return the answer of an idle or a new process.

        Raises:
            RefusalError: `deadline_exceeded`; `image_too_large` or `image_undecodable` when a signal has ended the
                process; `backend_error` when the process has exited by itself or did not start.

        """
        process = self._take() or self._start()
        try:
            answer = _ask(process, message, deadline)
        except BaseException:
            process.kill()
            raise
        with self._lock:
            self._idle.append(process)
        if answer is None:
            raise RefusalError("deadline_exceeded", "The decoding process did not start in time.")
        return answer

    def _take(self) -> Process | None:
        """Return an idle process that still runs."""
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_alive:
                    return process
                process.kill()
        return None

    def close(self) -> None:
        """Kill the idle processes."""
        with self._lock:
            while self._idle:
                self._idle.pop().kill()


def _ask(process: Process, message: bytes, deadline: float) -> bytes | None:
    """Return a process's answer; None when it is not ready by `deadline`. Raises the same as `Processes.ask`."""
    try:
        if not process.start(deadline):
            return None
    except (EOFError, OSError):
        raise RefusalError("backend_error", "the decoding process did not start") from None
    try:
        return process.ask(message, deadline)
    except TimeoutError:
        raise RefusalError("deadline_exceeded", "The image was not decoded in time.") from None
    except (EOFError, OSError):
        raise _exit_refusal(process.end()) from None


def _seconds_left(deadline: float) -> float:
    """Return the seconds until a deadline, 0 to `MAX_WAIT_S`."""
    return max(0.0, min(deadline - time.monotonic(), MAX_WAIT_S))


def _exit_refusal(code: int) -> RefusalError:
    """Return the refusal for a process that ended with this exit code, or by the signal of this negative number."""
    if code >= 0:
        return RefusalError("backend_error", "the decoding process has failed")
    if code in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE):
        return RefusalError("image_undecodable", "The image is damaged: its decoder crashed.")
    sentence = f"Decoding the image takes more than {CPU_S} s or more memory than one image may use."
    return RefusalError("image_too_large", sentence)


def _python() -> str:
    """Return the Python of this environment; in Triton's Python stub, `sys.executable` may be the stub or empty."""
    name = Path(sys.executable or "").name
    return sys.executable if name.startswith("python") else shutil.which("python3") or "python3"


def serve(answer: Callable[[bytes], bytes], connection: Connection, max_pixels: int) -> None:
    """Answer messages until the other side closes the connection or dies; the main loop of a process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    bytes_now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, bytes_now + SPARE_BYTES + BYTES_PER_PIXEL * max_pixels)
    connection.send_bytes(READY)
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        # The kernel kills the process when the CPU time of all its threads reaches this limit.
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + CPU_S)
        connection.send_bytes(answer(message))


def _limit(kind: int, limit: int) -> None:
    """Set a soft limit of this process, at most its hard limit."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def pack(head: Mapping[str, object], body: bytes = b"") -> bytes:
    """Return a message: one line of JSON, and bytes."""
    return json.dumps(head).encode() + b"\n" + body


def unpack(message: bytes) -> tuple[dict[str, object], bytes]:
    """Return the head and the body of a message made by `pack`."""
    head, _, body = message.partition(b"\n")
    read: dict[str, object] = json.loads(head)
    return read, body
