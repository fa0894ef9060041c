"""The folder in which the workers of one running gateway keep their metrics.

    <temporary folder>/gateway-<random>/
        owner                      locked (flock(2)) by the master while it lives; pids differ between containers
        reading                    locked: shared by scrapes, exclusively by a merge
        counter_<pid>.db ...       of a living worker, written by prometheus_client
        counter_dead.db ...        the sums over all workers that have ended

When a worker ends, its counts are kept and its gauges are dropped. So the number of files, and the time of a scrape,
does not grow with the number of workers that have come and gone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import struct
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self

import structlog
from prometheus_client.mmap_dict import MmapedDict

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "gateway-"
OWNER, READING = "owner", "reading"
DEAD = "dead"

logger = structlog.get_logger(__name__)


class WorkerFiles:
    """The files of one gateway's workers; used by its master alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ended: set[int] = set()

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Self]:
        """Make the folder, name it in the environment of the workers, and remove it at the end."""
        sweep()
        with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
            folder = Path(name)
            with (folder / f"{OWNER}.new").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                (folder / f"{OWNER}.new").rename(folder / OWNER)  # nobody finds it unlocked
                os.environ[FOLDER] = name
                try:
                    yield cls(folder)
                finally:
                    del os.environ[FOLDER]

    def forget(self, pid: int) -> None:
        """Drop the gauges of a worker that has ended; the next `merge` adds its counts."""
        for path in self._folder.glob(f"gauge_*_{pid}.db"):
            path.unlink(missing_ok=True)
        self._ended.add(pid)

    def merge(self, living: Collection[int]) -> None:
        """Add the counts of ended workers to the sums of the dead; do nothing now while a scrape reads the files.

        A pid that a living worker reuses is left out: prometheus_client goes on counting in the same files.
        """
        self._ended -= set(living)
        if not self._ended:
            return
        with (self._folder / READING).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            for path in [path for pid in self._ended for path in self._folder.glob(f"*_{pid}.db")]:
                self._add(path)
        self._ended.clear()

    def _add(self, path: Path) -> None:
        """Add one file of counters or histograms to the file of the dead."""
        dead = path.with_name(f"{path.name.partition('_')[0]}_{DEAD}.db")
        new = dead.with_suffix(".new")
        new.unlink(missing_ok=True)
        merged = MmapedDict(str(new))  # type: ignore[no-untyped-call]
        for key, value in _sums(dead, path).items():
            merged.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
        merged.close()  # type: ignore[no-untyped-call]
        new.rename(dead)
        path.unlink()


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Keep files from being merged while they are read."""
    with (folder / READING).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def sweep() -> None:
    """Remove the folders of killed gateways: those of this user whose owner file nobody holds locked."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), _taken(folder):
            shutil.rmtree(folder)
            logger.info("removed the metrics files of a killed gateway", folder=folder.name)


@contextmanager
def _taken(folder: Path) -> Iterator[IO[bytes]]:
    """Lock a folder's owner file.

    Raises:
        OSError: when the folder is a link, belongs to another user or has no owner file, or when its owner lives.

    """
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with open(os.open(OWNER, os.O_RDWR | os.O_NOFOLLOW, dir_fd=at), "r+b") as lock:
            for held in (os.fstat(at), os.fstat(lock.fileno())):
                if held.st_uid != os.getuid():
                    raise PermissionError
            if not stat.S_ISREG(os.fstat(lock.fileno()).st_mode):
                raise FileNotFoundError
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield lock
    finally:
        os.close(at)


def _sums(*paths: Path) -> dict[str, float]:
    sums = defaultdict[str, float](float)
    for path in paths:
        # The file is empty when its worker was killed right after creating it.
        with suppress(FileNotFoundError, struct.error):
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                sums[key] += value
    return sums
