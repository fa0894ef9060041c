"""A step's own threads: what takes long must not delay what came with it or after it.

Triton calls a Python step with a batch and calls it again when it returns. A picture may take 5 ms to decode or 5 s. So
each request of a batch runs on a thread of its own and is answered when it is done:

    execute(batch) --run--> one thread a request --gate--> decode, answer
         └ returns when all are answered, or after `patience`, whichever is first

Waiting at all has a reason: when a step's process dies, Triton (24.10) answers the requests of a running `execute`, and
leaves those that outlived theirs without an answer.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final

from stages.serving import RefusalError

PATIENCE_S: Final = 0.05
# A large picture holds its thread while it waits at its gate, so there must be more threads than requests: the gateway
# lets 128 items of a model be under way. A thread that waits costs some kilobytes.
THREADS: Final = 256
# 10 ms. What takes more is decoded in a process that can be ended.
SMALL_WORK: Final = 24_000_000
# Beyond any phone's usual photo (a JPEG of 12 megapixels is 72 million): such pictures take turns on half of the cores.
LARGE_WORK: Final = 96_000_000

logger = logging.getLogger(__name__)


class Workers:
    """A bounded set of threads; threads are cheap waiting rooms, `Gates` decides who computes."""

    def __init__(self, threads: int = THREADS, patience_s: float = PATIENCE_S) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="step")
        self._free = threading.BoundedSemaphore(threads)
        self._patience_s = patience_s

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Start every job, waiting for a thread where all are taken; return when all are done or patience ends."""
        wait([self._start(job) for job in jobs], timeout=self._patience_s)

    def close(self) -> None:
        """Let what has begun finish, and end the threads. May be called more than once."""
        self._pool.shutdown(wait=True)

    def _start(self, job: Callable[[], None]) -> Future[None]:
        self._free.acquire()
        try:
            return self._pool.submit(self._guarded, job)
        except RuntimeError:  # closed
            self._free.release()
            raise

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            logger.exception("a job of this step failed")
        finally:
            self._free.release()


class Gates:
    """How many pictures are decoded at a time: of small ones one a core, of others too, of large ones half as many."""

    def __init__(self, cores: int | None = None) -> None:
        cores = cores or len(os.sched_getaffinity(0))
        self._small = threading.BoundedSemaphore(cores)
        self._ordinary = threading.BoundedSemaphore(cores)
        self._large = threading.BoundedSemaphore(max(1, cores // 2))

    @contextmanager
    def enter(self, work: int, deadline: float = math.inf) -> Iterator[None]:
        """Wait for the turn of a picture of so much work (`stages.budget`), and hold it.

        Raises:
            RefusalError: `deadline_exceeded`, when its turn has not come by `deadline`, in seconds of time.monotonic.

        """
        gate = self._small if work <= SMALL_WORK else self._ordinary if work <= LARGE_WORK else self._large
        left = min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
        if left <= 0 or not gate.acquire(timeout=left):
            raise RefusalError("deadline_exceeded", "The image's turn to be decoded did not come in time.")
        try:
            yield
        finally:
            gate.release()


def return_memory() -> None:
    """Give what a large picture took back to the system: glibc would keep 64 MB and more for every thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own; 5 ms
    if trim is not None:
        trim(0)
