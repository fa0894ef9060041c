"""A step's own threads: a slow picture must not delay the pictures beside or behind it.

Triton calls a Python step with a batch, and again only after it has returned. A picture may take 5 ms to decode, or
5 s. So each request of a batch runs on its own thread and is answered as soon as it is done:

    execute(batch) --run--> one thread a request --gate--> decode, answer
         └ returns when all are answered, or after `patience`, whichever is first

`execute` waits at all because Triton (24.10), when a step's process dies, answers only the requests of a running
`execute`. Requests whose `execute` has returned stay without an answer.
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
# A large picture holds its thread while it waits at its gate, so there must be more threads than requests. The gateway
# allows 128 items per model at a time. A waiting thread costs a few kilobytes.
THREADS: Final = 256
# 10 ms. A picture of more work is decoded in a process that can be killed.
SMALL_WORK: Final = 24_000_000
# Above a usual phone photo (a JPEG of 12 megapixels is 72 million). Larger pictures share half of the cores.
LARGE_WORK: Final = 96_000_000

logger = logging.getLogger(__name__)


class Workers:
    """A bounded set of threads. Threads are cheap and mostly wait; `Gates` limits how many compute."""

    def __init__(self, threads: int = THREADS, patience_s: float = PATIENCE_S) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="step")
        self._free = threading.BoundedSemaphore(threads)
        self._patience_s = patience_s

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Start every job, waiting while no thread is free; return when all jobs are done or after `patience_s`."""
        wait([self._start(job) for job in jobs], timeout=self._patience_s)

    def close(self) -> None:
        """Wait for running jobs, then end the threads. May be called more than once."""
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
    """Concurrency limits for decoding: one small and one ordinary picture per core, one large picture per two cores."""

    def __init__(self, cores: int | None = None) -> None:
        cores = cores or len(os.sched_getaffinity(0))
        self._small = threading.BoundedSemaphore(cores)
        self._ordinary = threading.BoundedSemaphore(cores)
        self._large = threading.BoundedSemaphore(max(1, cores // 2))

    @contextmanager
    def enter(self, work: int, deadline: float = math.inf) -> Iterator[None]:
        """Wait for a slot for a picture of this much work (`stages.budget`), and hold the slot.

        Raises:
            RefusalError: `deadline_exceeded`, when no slot is free by `deadline`, in seconds of time.monotonic.

        """
        gate = self._small if work <= SMALL_WORK else self._ordinary if work <= LARGE_WORK else self._large
        left = min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
        if left <= 0 or not gate.acquire(timeout=left):
            raise RefusalError("deadline_exceeded", "The deadline passed while the image waited to be decoded.")
        try:
            yield
        finally:
            gate.release()


def return_memory() -> None:
    """Return freed memory to the system after a large picture: glibc would keep 64 MB or more per thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # exists in glibc only; takes 5 ms
    if trim is not None:
        trim(0)
