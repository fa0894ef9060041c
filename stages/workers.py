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
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final

PATIENCE_S: Final = 0.05
# A large picture holds its thread while it waits at its gate, so there must be more threads than requests: the gateway
# lets 128 items of a model be under way. A thread that waits costs some kilobytes.
THREADS: Final = 256
# Beyond any phone's usual photo (12 megapixels): such pictures take turns on half of the cores.
LARGE_PIXELS: Final = 16_000_000

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
    """How many pictures are decoded at a time: one a core, and large ones on at most half of the cores."""

    def __init__(self, cores: int | None = None) -> None:
        cores = cores or len(os.sched_getaffinity(0))
        self._ordinary = threading.BoundedSemaphore(cores)
        self._large = threading.BoundedSemaphore(max(1, cores // 2))

    @contextmanager
    def enter(self, pixels: int) -> Iterator[None]:
        """Wait for the turn of a picture of so many pixels, and hold it."""
        large = pixels > LARGE_PIXELS
        with self._large if large else self._ordinary:
            yield
        if large:
            _return_memory()


def _return_memory() -> None:
    """Give what a large picture took back to the system: glibc would keep 64 MB and more for every thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own; 5 ms
    if trim is not None:
        trim(0)
