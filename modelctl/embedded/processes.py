"""Processes and shared memory, as /proc and /dev/shm show them (proc(5), shm_overview(7)).

Triton runs every instance of a Python step as a process of its own, the stub:

    triton_python_backend_stub <model>/<version>/model.py <shared memory region> <sizes> <server's pid> ... <instance>
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SERVER, STUB = "tritonserver", "triton_python_backend_stub"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's name for it
REGION = re.compile(r"triton_[A-Za-z0-9_-]{1,64}_backend_shm_region_[A-Za-z0-9-]{1,64}")
"""Triton's default name for a step's region, by backend; clients and `shm-region-prefix-name` choose other names."""
PR_SET_PDEATHSIG = 1
GONE = -1
LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp."""


@dataclass(frozen=True)
class Stub:
    """The process of one instance of a Python step, and the shared memory over which it talks to the server."""

    pid: int
    model: str
    region: str


def living(group: int) -> list[int]:
    """Return the processes of a process group, except zombies."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with suppress(OSError):  # the process has ended meanwhile
            # The supervisor checks twice a second, and getpgid is cheaper than reading a file of /proc.
            if os.getpgid(pid) == group and _state(pid) not in "ZX":
                found.append(pid)
    return found


def groups(pid: int) -> set[int]:
    """Return the process groups of a process and of all its descendants."""
    family = {pid}
    rows = [(int(folder.name), _fields(int(folder.name))) for folder in Path("/proc").glob("[0-9]*")]
    rows = [(number, fields) for number, fields in rows if fields]
    while more := {number for number, fields in rows if int(fields[1]) in family} - family:
        family |= more
    return {int(fields[2]) for number, fields in rows if number in family}


def listeners(port: int) -> list[int]:
    """Return the processes that listen on a TCP port, as far as this user may inspect them."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):  # a machine without IPv6
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    found = []
    for folder in Path("/proc").glob("[0-9]*") if sockets else ():
        with suppress(OSError):  # the process has ended, or is another user's
            if any(_link(file) in sockets for file in (folder / "fd").iterdir()):
                found.append(int(folder.name))
    return found


def working_directory(pid: int) -> Path | None:
    """Return a process's working directory; None when the process is gone, or another user's."""
    link = _link(Path(f"/proc/{pid}/cwd"))
    return Path(link) if link else None


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def stubs(group: int) -> list[Stub]:
    """Return the living stubs of a process group."""
    found = []
    for pid in living(group):
        words = command(pid)
        if len(words) > 2 and Path(words[0]).name == STUB:
            found.append(Stub(pid, Path(words[1]).parent.parent.name, words[2].lstrip("/")))
    return found


def regions() -> set[str]:
    """Return the shared memory regions of the steps of all servers on this machine."""
    return {name for name in os.listdir(SHARED_MEMORY) if REGION.fullmatch(name)}


def mapped_regions(pid: int) -> set[str]:
    """Return the steps' shared memory regions that a process maps, without those that clients registered."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return {name for line in lines if REGION.fullmatch(name := line.rpartition(f"{SHARED_MEMORY}/")[2])}


def start_time(pid: int) -> str:
    """Return a process's start in clock ticks since boot; empty when it is gone. With the pid it is unique."""
    return next(iter(_fields(pid)[19:20]), "")


def is_of_triton(group: int, start: str, regions: Collection[str]) -> bool:
    """Tell whether a process group belongs to a recorded Triton of this user.

    It does when its leader is that server, or, because stubs can outlive their server, when it has a stub with one of
    the server's regions.

    Args:
        group: the process group.
        start: the leader's `start_time`, as recorded.
        regions: the shared memory regions of its stubs, as recorded.

    """
    members = living(group)
    if group in (0, 1, os.getpgrp()) or any(_user(pid) not in (os.getuid(), GONE) for pid in members):
        return False
    leads = group in members and start_time(group) == start and Path(command(group)[0]).name == SERVER
    return leads or any(stub.region in regions for stub in stubs(group))


def processor_seconds(group: int) -> float:
    """Return the processor time, in seconds, of a group's living processes and of the children they waited for."""
    ticks = sum(int(number) for pid in living(group) for number in _fields(pid)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def machine_seconds() -> float:
    """Return the processor time, in seconds, that programs used and the hypervisor took away since boot."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = numbers
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def kill_group(group: int, seconds: float = 5) -> None:
    """Kill a process group and wait, at most `seconds`, until none of its processes lives."""
    deadline = time.monotonic() + seconds
    while living(group) and time.monotonic() < deadline:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        time.sleep(0.02)


def sweep(regions: Iterable[str]) -> list[str]:
    """Remove those shared memory regions of this user that no process maps; return their names."""
    left = {name for name in regions if "/" not in name and _is_own_file(SHARED_MEMORY / name)}
    if not left:
        return []
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            text = maps.read_text(errors="replace")
            left = {name for name in left if f"{SHARED_MEMORY}/{name}" not in text}
    for name in left:
        with suppress(OSError):
            (SHARED_MEMORY / name).unlink()
    return sorted(left)


def _is_own_file(path: Path) -> bool:
    try:
        status = path.lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def dies_with_parent() -> Callable[[], None]:
    """Return a `preexec_fn` for a child that the kernel kills when this process dies (prctl(2))."""
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before prctl was called
            os._exit(1)

    return ask


def _fields(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the command's name, from the state on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")  # a process name can hold any bytes
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _state(pid: int) -> str:
    return next(iter(_fields(pid)), "X")


def _user(pid: int) -> int:
    """Return the id of the user who owns a process; GONE when it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return GONE
    return int(text.partition("\nUid:")[2].split()[0])


def command(pid: int) -> list[str]:
    """Return the command line of a process; one empty word when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return [""]
