"""The state folder: files that a supervisor keeps for its clean-up and for the operator.

    serve.lock   locked by the supervisor that uses the folder
    server.json  the server's process group and shared memory, to clean up after a supervisor that was killed
    control.key  the key of Triton's control protocols (`modelctl.embedded.control`)
    triton.log   Triton's output; triton.log.1 has the lines before it
    backends/    assembled for the wheel's server (`modelctl.embedded.installation`)

Once Triton serves, a file that cannot be written is reported once, and Triton goes on. The folder is not trusted
either: only this user may write to it, files are opened by name below the folder without following links, and a record
counts only for processes and shared memory that can belong to a Triton of this user.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from modelctl.console import say
from modelctl.embedded import processes
from modelctl.errors import CommandError

LOCK, RECORD = "serve.lock", "server.json"
MAX_BYTES = 1 << 20
"""Maximum size of a file that is read; the record of a server with a thousand steps has a tenth of it."""
MAX_PID = 1 << 22
"""The largest pid that Linux assigns (proc(5), pid_max)."""


class StateFolder:
    """One open folder; as a context manager it is closed at the end."""

    def __init__(self, path: Path) -> None:
        """Open a folder; make it when it is missing.

        Raises:
            CommandError: when it cannot be made or opened, or when others may write to it.

        """
        self.path = path
        self._temporary = False
        self._lock = -1
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self.refusal(error) from error
        status = os.fstat(self._folder)
        fault = ""
        if status.st_uid != os.geteuid():
            fault = "belongs to another user: give"
        elif status.st_mode & stat.S_IWOTH:
            fault = f"can be written by every user: chmod o-w {path}, or give"
        if fault:
            self.close()
            raise CommandError(f"{path} {fault} another folder with --state.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Unlock and close the folder; a temporary one is removed."""
        for descriptor in (self._lock, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._folder = -1
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)

    def refusal(self, error: OSError) -> CommandError:
        """Return the error for a folder that cannot be written."""
        reason = "a link is in the way" if error.errno == errno.ELOOP else error.strerror
        return CommandError(f"{self.path} cannot be written ({reason}): give another folder with --state.")

    def lock(self) -> None:
        """Lock the folder until it is closed; when that fails, close it and raise CommandError."""
        try:
            self._lock = self.open(LOCK, os.O_RDWR | os.O_CREAT)  # NFS locks only files that are open for writing
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise CommandError(
                f"Another modelctl serve uses {self.path}: stop it, or give another folder with --state."
            ) from error
        except OSError as error:
            self.close()
            raise self.refusal(error) from error

    def open(self, name: str, flags: int) -> int:
        """Return the descriptor of a file in the folder.

        Raises:
            OSError: also for links, pipes, and files of other users.

        """
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._folder)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink < 2:
            return descriptor
        os.close(descriptor)
        raise PermissionError(errno.EPERM, f"{name} is not a plain file of this user")

    def lacks(self, name: str) -> bool:
        """Tell whether a file is missing or empty; a link, even a broken one, is neither."""
        try:
            status = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return stat.S_ISREG(status.st_mode) and not status.st_size

    def read(self, name: str) -> str:
        """Return a file's text; raises OSError or ValueError."""
        with os.fdopen(self.open(name, os.O_RDONLY), "rb") as file:
            return file.read(MAX_BYTES).decode()

    def write(self, name: str, text: str) -> None:
        """Write a file, or replace it, in one step; raises OSError and then leaves the old file as it was."""
        new = f"{name}.new"
        try:
            self.remove(new)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(new, flags, 0o600, dir_fd=self._folder), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())  # otherwise a power cut could leave an empty file
            self.rename(new, name)
        except OSError:
            self.remove(new)
            raise

    def rename(self, name: str, to: str) -> None:
        """Rename a file; raises OSError."""
        os.replace(name, to, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def remove(self, name: str) -> None:
        """Remove a file, or a link without its target, if that is possible."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self._folder)

    def is_there(self) -> bool:
        """Tell whether the path still leads to the folder that was opened."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._folder))
        except OSError:
            return False

    def renew(self) -> None:
        """Make the folder again when it is gone; when that fails, switch to a temporary one.

        Raises:
            CommandError: when a temporary one cannot be made either.

        """
        if self.is_there():
            return
        say(f"{self.path} is gone: it is made again.")
        try:
            fresh = StateFolder(self.path)
            fresh.lock()
        except CommandError as error:
            say(str(error))
            self.move()
            return
        self._switch_to(fresh)

    def move(self) -> None:
        """Switch to a temporary folder, which is removed at the end; raises CommandError when it cannot be made."""
        try:
            fresh = StateFolder(Path(tempfile.mkdtemp(prefix="modelctl-state-")))
        except OSError as error:
            raise CommandError(f"No folder can be made for the server's files ({error.strerror}).") from error
        fresh._temporary = True
        say(f"{self.path} cannot be used: log and parts of Triton are in {fresh.path} until the end.")
        fresh.lock()
        self._switch_to(fresh)

    def _switch_to(self, fresh: StateFolder) -> None:
        self.close()
        self.path, self._folder, self._lock = fresh.path, fresh._folder, fresh._lock
        self._temporary = fresh._temporary


@dataclass(frozen=True)
class Record:
    """A running server, recorded so that the next supervisor can clean up after it.

    Attributes:
        group: its process group.
        start: the leader's `processes.start_time`.
        regions: names of its steps' shared memory regions; other names than Triton's default ones are dropped.

    """

    group: int
    start: str
    regions: tuple[str, ...]

    def text(self) -> str:
        """Return the record as JSON."""
        return json.dumps({"group": self.group, "start": self.start, "regions": sorted(_valid(self.regions))})

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the record in a text; raises ValueError when the text cannot be a server's record."""
        try:
            data: Any = json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(data, dict):
            raise ValueError("not an object")
        group, start, regions = data.get("group"), data.get("start"), data.get("regions")
        if type(group) is not int or not 1 < group <= MAX_PID:
            raise ValueError("no process group")
        if not isinstance(start, str) or not re.fullmatch("[0-9]{1,20}", start):
            raise ValueError("no start time")
        if not isinstance(regions, list):
            raise ValueError("no names of regions")
        return cls(group, start, tuple(_valid(regions)))


def _valid(names: Iterable[Any]) -> list[str]:
    return [name for name in names if isinstance(name, str) and processes.REGION.fullmatch(name)]


def take_state(path: Path) -> StateFolder:
    """Return a state folder, locked until it is closed, after cleaning up what a killed supervisor left.

    Raises:
        CommandError: when another supervisor uses it, when it cannot be written, or when others may write to it.

    """
    state = StateFolder(path)
    try:
        state.lock()
        _clear_leftovers(state)
    except BaseException:
        state.close()
        raise
    return state


def _clear_leftovers(state: StateFolder) -> None:
    """Kill the processes and remove the shared memory that a killed supervisor left behind."""
    try:
        record = Record.read(state.read(RECORD))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        say(f"{state.path / RECORD} is not a supervisor's record ({error}): nothing is cleaned up.")
        return
    if processes.is_of_triton(record.group, record.start, record.regions):
        processes.kill_group(record.group)
    processes.sweep(record.regions)
    state.remove(RECORD)
