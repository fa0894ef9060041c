"""Processes that decode what a thread could not be stopped from decoding.

    thread --the file's bytes--> process: decode, upright, fit --the small result--> thread
                                 └ ended by the deadline, by its CPU time or by its memory

Each process serves one picture at a time and stays for the next. It is started by exec, as a fork of a process with
threads may hang, and when it is first needed. What it answers is numbers and text, never pickled objects: it may have
been taken over by what it decoded.
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
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from stages.serving import RefusalError

CPU_S: Final = 5
"""For one picture, all threads together. The most expensive sound ones, of 50 megapixels, take 2 (docs/decisions)."""
BYTES_PER_PIXEL, SPARE_BYTES = 24, 200_000_000
"""Memory for one picture of the most pixels: WebP's decoder alone holds its canvas twice, beside Pillow's picture."""
MAX_ANSWER: Final = 1 << 30

_PR_SET_PDEATHSIG: Final = 1


class Process:
    """One process that runs `python -m <module>` and answers messages over a socket, which is its standard input."""

    def __init__(self, module: str, greeting: bytes) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - our own command line
                [_python(), "-I", "-m", module],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libtiff and others write what strangers send
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        self._connection = Connection(ours.detach())
        self._connection.send_bytes(greeting)

    def ask(self, message: bytes, deadline: float) -> bytes:
        """Return the answer to a message.

        Raises:
            TimeoutError: when it has not come by `deadline`, in seconds of time.monotonic.
            EOFError, OSError: when the process has ended.

        """
        self._connection.send_bytes(message)
        if not self._connection.poll(max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX))):
            raise TimeoutError
        return self._connection.recv_bytes(MAX_ANSWER)

    def kill(self) -> int:
        """End it at once; return its exit code, or the negative number of the signal that ended it."""
        self._process.kill()
        self._connection.close()
        return self._process.wait()


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
                process, `backend_error` when it has failed by itself.

        """
        with self._lock:
            process = self._idle.pop() if self._idle else None
        process = process or self._start()
        try:
            answer = process.ask(message, deadline)
        except TimeoutError:
            process.kill()
            raise RefusalError("deadline_exceeded", "The image was not decoded in time.") from None
        except (EOFError, OSError):
            raise _ended(process.kill()) from None
        with self._lock:
            self._idle.append(process)
        return answer

    def close(self) -> None:
        """End those that have nothing to do."""
        with self._lock:
            while self._idle:
                self._idle.pop().kill()


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
    resource.setrlimit(resource.RLIMIT_AS, (bytes_most, bytes_most))
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        # The kernel ends the process when its CPU time, all threads together, has reached this.
        seconds = int(used.ru_utime + used.ru_stime) + CPU_S
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        connection.send_bytes(answer(message))


def pack(head: Mapping[str, object], body: bytes = b"") -> bytes:
    """Return a message: one line of JSON, and bytes."""
    return json.dumps(head).encode() + b"\n" + body


def unpack(message: bytes) -> tuple[dict[str, object], bytes]:
    """Return what `pack` was given."""
    head, _, body = message.partition(b"\n")
    read: dict[str, object] = json.loads(head)
    return read, body
