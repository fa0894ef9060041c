"""The state folder: what a supervisor keeps beside the models, to clear up after itself and to look into.

    serve.lock   locked by whom the folder belongs to now
    server.json  the server's process group and shared memory, for whoever clears up after a supervisor that was killed
    control.key  the key of Triton's control protocols (`modelctl.embedded.control`)
    triton.log   what Triton said; triton.log.1 before that
    backends/    put together for the wheel's server (`modelctl.embedded.installation`)

It is an aid: what cannot be written is said once, and nothing ends for it. It is not trusted either: only this user may
have written there, files are opened by name below the folder without following links, and a record counts only for
processes and memory that can be a Triton's of this user.
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
MOST_BYTES = 1 << 20
"""Of a record; a server with a thousand steps has a tenth of it."""
LAST_PID = 1 << 22
"""The largest that Linux gives (proc(5), pid_max)."""


class StateFolder:
    """One folder, opened. As a context manager it is closed at the end."""

    def __init__(self, path: Path) -> None:
        """Open a folder, which is made where there is none.

        Raises:
            CommandError: when it cannot be made, or when others may write there.

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
            raise CommandError(f"{path} {fault} another folder by --state.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder back; one that was made for want of another is removed."""
        for descriptor in (self._lock, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._folder = -1
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)

    def refusal(self, error: OSError) -> CommandError:
        """Return what to say when the folder cannot be used."""
        reason = "a link is in the way" if error.errno == errno.ELOOP else error.strerror
        return CommandError(f"{self.path} cannot be written ({reason}): give another folder by --state.")

    def lock(self) -> None:
        """Make the folder one's own until it is closed; close it and raise CommandError when that cannot be done."""
        try:
            self._lock = self.open(LOCK, os.O_RDWR | os.O_CREAT)  # NFS locks only what may be written
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise CommandError(
                f"Another modelctl serve uses {self.path}: stop it, or give another folder by --state."
            ) from error
        except OSError as error:
            self.close()
            raise self.refusal(error) from error

    def open(self, name: str, flags: int) -> int:
        """Return the descriptor of a file in the folder.

        Raises:
            OSError: also for links, pipes, and files of others.

        """
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._folder)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink < 2:
            return descriptor
        os.close(descriptor)
        raise PermissionError(errno.EPERM, f"{name} is no plain file of this user")

    def lacks(self, name: str) -> bool:
        """Tell whether there is nothing of that name, not even a link, or an empty file."""
        try:
            status = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return stat.S_ISREG(status.st_mode) and not status.st_size

    def read(self, name: str) -> str:
        """Return a file's text; raises OSError or ValueError."""
        with os.fdopen(self.open(name, os.O_RDONLY), "rb") as file:
            return file.read(MOST_BYTES).decode()

    def write(self, name: str, text: str) -> None:
        """Put a file in its place, whole, whatever was there; raises OSError, and then all is as before."""
        new = f"{name}.new"
        try:
            self.remove(new)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(new, flags, 0o600, dir_fd=self._folder), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())  # else a power cut may leave the name without the text
            self.rename(new, name)
        except OSError:
            self.remove(new)
            raise

    def rename(self, name: str, to: str) -> None:
        """Rename a file; raises OSError."""
        os.replace(name, to, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def remove(self, name: str) -> None:
        """Remove a file, or a link and not what it points to, if that can be done."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self._folder)

    def is_there(self) -> bool:
        """Tell whether the path still leads to the folder that was opened."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._folder))
        except OSError:
            return False

    def renew(self) -> None:
        """Make the folder anew when it is gone; where that cannot be done, go on in a temporary one.

        Raises:
            CommandError: when there is no place at all.

        """
        if self.is_there():
            return
        say(f"{self.path} is gone: it is made anew.")
        try:
            fresh = StateFolder(self.path)
            fresh.lock()
        except CommandError as error:
            say(str(error))
            self.move()
            return
        self._become(fresh)

    def move(self) -> None:
        """Go on in a temporary folder, which is removed at the end; raises CommandError when there is no place."""
        try:
            fresh = StateFolder(Path(tempfile.mkdtemp(prefix="modelctl-state-")))
        except OSError as error:
            raise CommandError(f"There is no place for the server's files ({error.strerror}).") from error
        fresh._temporary = True
        say(f"{self.path} cannot be used: log and parts of Triton are in {fresh.path} until the end.")
        fresh.lock()
        self._become(fresh)

    def _become(self, fresh: StateFolder) -> None:
        self.close()
        self.path, self._folder, self._lock = fresh.path, fresh._folder, fresh._lock
        self._temporary = fresh._temporary


@dataclass(frozen=True)
class Record:
    """A running server, for whoever must clear up after its supervisor.

    Attributes:
        group: its process group.
        start: when its leader began, as `processes.start_time` tells.
        regions: names of the shared memory of its steps; others than Triton gives by itself are not kept.

    """

    group: int
    start: str
    regions: tuple[str, ...]

    def text(self) -> str:
        """Return it as it is written."""
        return json.dumps({"group": self.group, "start": self.start, "regions": sorted(_known(self.regions))})

    @classmethod
    def read(cls, text: str) -> Self:
        """Read one; raises ValueError when a server cannot have left it."""
        try:
            data: Any = json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(data, dict):
            raise ValueError("no object")
        group, start, regions = data.get("group"), data.get("start"), data.get("regions")
        if type(group) is not int or not 1 < group <= LAST_PID:
            raise ValueError("no process group")
        if not isinstance(start, str) or not re.fullmatch("[0-9]{1,20}", start):
            raise ValueError("no start")
        if not isinstance(regions, list):
            raise ValueError("no names of regions")
        return cls(group, start, tuple(_known(regions)))


def _known(names: Iterable[Any]) -> list[str]:
    return [name for name in names if isinstance(name, str) and processes.REGION.fullmatch(name)]


def take_state(path: Path) -> StateFolder:
    """Return a state folder that is one's own until it is closed, after clearing what its last owner left.

    Raises:
        CommandError: when another supervisor has it, when it cannot be written, or when others may write there.

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
    """Kill and sweep what a supervisor that was itself killed has left behind."""
    try:
        record = Record.read(state.read(RECORD))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        say(f"{state.path / RECORD} is not what a supervisor leaves ({error}): nothing is cleared by it.")
        return
    if processes.is_of_triton(record.group, record.start, record.regions):
        processes.kill_group(record.group)
    processes.sweep(record.regions)
    state.remove(RECORD)
