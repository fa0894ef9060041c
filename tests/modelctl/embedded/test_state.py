"""The state folder: its content is not trusted, and failing to write there ends nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelctl.embedded import installation, processes
from modelctl.embedded.log import Log
from modelctl.embedded.state import Record, take_state
from modelctl.errors import CommandError

ROOT = Path(__file__).resolve().parents[3]
SHARED_MEMORY = Path("/dev/shm")
REGION = "triton_python_backend_shm_region_00000000-test-state"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state folder's path."""
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process in its own group that is not a Triton."""
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def outside() -> Iterator[list[Path]]:
    """Return files that no record may delete."""
    names = ("test_state_victim", "triton_test_state", "psm_test_state")
    files = [SHARED_MEMORY / name for name in names]
    for file in files:
        file.write_text("mine")
    yield files
    for file in files:
        file.unlink()


def test_a_folder_of_others_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that everybody may write, or of another user, ends the start with one sentence."""
    state.chmod(0o777)
    with pytest.raises(CommandError, match=r"can be written by every user: chmod o-w .* --state"):
        take_state(state)
    state.chmod(0o1777)
    with pytest.raises(CommandError, match="every user"):
        take_state(state)
    state.chmod(0o775)
    take_state(state).close()
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(CommandError, match=r"belongs to another user: give another folder with --state"):
        take_state(state)


def test_a_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    """Only the owner may read a new folder and its files."""
    with take_state(tmp_path / "a" / "b") as state:
        state.write("server.json", "{}")
        Log(state).write("a line")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a" / "b").iterdir()} == {0o600}


def test_a_folder_has_one_owner_at_a_time(state: Path) -> None:
    with take_state(state), pytest.raises(CommandError, match="Another modelctl serve uses"):
        take_state(state)
    take_state(state).close()


def test_the_lock_can_be_had_on_nfs(state: Path) -> None:
    """Its file is open for writing, which NFS requires for an exclusive lock."""
    with take_state(state):
        files = [
            file for file in Path("/proc/self/fd").iterdir() if os.path.realpath(file) == str(state / "serve.lock")
        ]
        assert [fcntl.fcntl(int(file.name), fcntl.F_GETFL) & os.O_ACCMODE for file in files] == [os.O_RDWR]


NAMES = ("serve.lock", "server.json", "server.json.new", "triton.log", "triton.log.1", "control.key.new")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["link", "link to nothing", "hard link", "pipe", "folder"])
def test_links_in_place_of_our_files_are_not_followed(state: Path, tmp_path: Path, name: str, kind: str) -> None:
    """Whatever is in their place, nothing outside the folder changes, and nothing hangs."""
    precious = tmp_path / "precious"
    precious.write_text(Record(2, "1", ()).text())
    before = precious.read_text()
    if kind == "link":
        (state / name).symlink_to(precious)
    elif kind == "link to nothing":
        (state / name).symlink_to(tmp_path / "nothing")
    elif kind == "hard link":
        (state / name).hardlink_to(precious)
    elif kind == "pipe":
        os.mkfifo(state / name)
    else:
        (state / name).mkdir()
    with suppress(CommandError), take_state(state) as taken:
        log = Log(taken, max_bytes=100)
        for number in range(40):
            log.write(f"line {number}")
        log.close()
        for file in ("server.json", "control.key"):
            with suppress(OSError):
                taken.write(file, "new")
    assert precious.read_text() == before
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", ["backends", "backends.new", "backends.old"])
def test_backends_are_not_put_together_elsewhere(state: Path, tmp_path: Path, name: str) -> None:
    """A link in their place is replaced; its target does not change."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "python").mkdir(parents=True)
    (elsewhere / "python" / "precious").write_text("mine")
    (state / name).symlink_to(elsewhere)
    made = installation.find().backend_directory(tmp_path, state)
    assert not made.is_symlink()
    assert (made / "python" / "libtriton_python.so").exists()
    assert [path.name for path in elsewhere.rglob("*")] == ["python", "precious"]
    assert [path.name for path in state.iterdir()] == ["backends"]


def mutated(rng: random.Random, victim: int, files: list[Path]) -> bytes:
    """Return a record as an attacker or an accident may leave it."""
    start = processes.start_time(victim)
    names = [REGION, "../../etc/passwd", "/etc/passwd", "..", "", ".", "a/b", "\0", *(file.name for file in files)]
    names += [f"triton_python_backend_shm_region_/../{file.name}" for file in files]
    names += [f"triton_python_backend_shm_region_\n{file.name}" for file in files]
    odd = [None, True, -1, 0, 1, 2**31, 10**30, 1.5, float("nan"), "", "1", [], {}, [[]], os.getpid(), os.getpgrp()]
    record: Any = {
        "group": rng.choice([victim, victim, os.getpgrp(), os.getpid(), *odd]),
        "start": rng.choice([start, start, "", "0", *odd]),
        "regions": rng.choice([rng.choices(names, k=3), rng.choices(names, k=1), *odd, rng.choices(odd, k=2)]),
    }
    for key in rng.sample(sorted(record), rng.choice([0, 0, 0, 1])):
        del record[key]
    text = json.dumps(rng.choice([record] * 9 + [list(record), "text", 5, None])).encode()
    how = rng.random()
    if how < 0.1:
        return text[: rng.randrange(len(text))]
    if how < 0.2:
        at = rng.randrange(len(text))
        return text[:at] + rng.randbytes(1) + text[at + 1 :]
    if how < 0.25:
        return rng.choice([b"", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b"{" * 3, b" " * (2 << 20)])
    return text


def test_no_record_does_harm(state: Path, victim: subprocess.Popen[bytes], outside: list[Path]) -> None:
    """Of 400 records none deletes anything but unused memory of steps, kills a process, or gives a traceback."""
    rng = random.Random(1)
    for _ in range(400):
        (state / "server.json").write_bytes(mutated(rng, victim.pid, outside))
        take_state(state).close()
        assert victim.poll() is None
        assert all(file.exists() for file in outside)
    assert Path("/etc/passwd").exists()


def test_memory_of_others_and_in_use_stays(state: Path) -> None:
    """Only regions that no process maps are removed; a link of such a name is not followed."""
    (SHARED_MEMORY / REGION).write_bytes(b"left")
    link = f"{REGION}-link"
    (SHARED_MEMORY / link).symlink_to(SHARED_MEMORY / REGION)
    try:
        (state / "server.json").write_text(Record(nobody(), "1", (link,)).text())
        take_state(state).close()
        assert (SHARED_MEMORY / REGION).exists()
        (state / "server.json").write_text(Record(nobody(), "1", (REGION,)).text())
        take_state(state).close()
        assert not (SHARED_MEMORY / REGION).exists()
        assert not (state / "server.json").exists()
    finally:
        for name in (link, REGION):
            (SHARED_MEMORY / name).unlink(missing_ok=True)


def nobody() -> int:
    """Return the id of a process group that does not exist."""
    return next(number for number in range(1 << 22, 2, -1) if not psutil.pid_exists(number))


def test_a_record_counts_without_the_names_that_triton_does_not_give() -> None:
    """Memory of clients, or with an operator's prefix, is not kept, and the rest is accepted."""
    assert json.loads(Record(2, "1", ("triton_mine", REGION)).text())["regions"] == [REGION]
    text = json.dumps({"group": 2, "start": "1", "regions": ["triton_mine", REGION, None, f"{REGION}/.."]})
    assert Record.read(text) == Record(2, "1", (REGION,))
    ours = tuple(REGION.replace("python", path.parent.name) for path in (ROOT / "backends").glob("*/model.py"))
    assert len(ours) > 4
    assert set(Record.read(Record(2, "1", ours).text()).regions) == set(ours)


def test_memory_that_a_client_has_registered_is_not_a_steps() -> None:
    """Of a server's mapped memory, only that of its steps is removed after it."""
    own, mine = SHARED_MEMORY / REGION, SHARED_MEMORY / "triton_test_state_mine"
    try:
        with ExitStack() as stack:
            for file in (own, mine):
                file.write_bytes(b"mapped")
                opened = stack.enter_context(file.open("rb"))
                stack.enter_context(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
            assert {own.name, mine.name} & processes.mapped_regions(os.getpid()) == {own.name}
    finally:
        for file in (own, mine):
            file.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tritonserver", "triton_python_backend_stub"])
def test_only_process_groups_of_a_triton_are_killed(state: Path, tmp_path: Path, name: str) -> None:
    """A server is known by its start time, a step by its memory; groups that differ are spared."""
    script = tmp_path / "script"
    script.write_text("sleep 60")
    words = [str(tmp_path / name), str(script), f"/{REGION}"]
    process = subprocess.Popen(words, executable="/bin/sh", start_new_session=True)
    try:
        start = processes.start_time(process.pid)
        for wrong in (Record(process.pid, "1", ()), Record(process.pid, "1", (f"{REGION}-other",))):
            (state / "server.json").write_text(wrong.text())
            take_state(state).close()
            assert process.poll() is None
        regions = () if name == "tritonserver" else (REGION,)
        (state / "server.json").write_text(Record(process.pid, start, regions).text())
        take_state(state).close()
        assert process.wait(5) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


LIMITED = """
import resource, sys
from pathlib import Path
from modelctl.embedded.log import Log
from modelctl.embedded.state import StateFolder

state = StateFolder(Path(sys.argv[1]))
state.write("server.json", "before")
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
log = Log(state)
for number in range(3):
    log.write("lost")
try:
    state.write("server.json", "after")
except OSError as error:
    print(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.write("kept")
"""


def test_a_full_disk_is_reported_once(state: Path) -> None:
    """The record stays, log lines are lost until there is room, and one line reports it."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(state)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == errno.EFBIG
    assert done.stderr.count("triton.log cannot be written (File too large)") == 1
    assert (state / "server.json").read_text() == "before"
    assert (state / "triton.log").read_text() == "kept\n"
    assert not (state / "server.json.new").exists()


def test_a_missing_folder_is_replaced(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If its path cannot be created, a temporary folder serves, which goes with its owner."""
    with take_state(state) as taken:
        shutil.rmtree(state)
        assert not taken.is_there()
        taken.renew()
        taken.write("server.json", "{}")
        assert (state / "server.json").exists()
        shutil.rmtree(state)
        state.write_text("no folder")
        taken.renew()
        temporary = taken.path
        assert temporary != state
        taken.write("server.json", "{}")
        assert (temporary / "server.json").exists()
        assert temporary.stat().st_mode & 0o777 == 0o700
    assert not temporary.exists()
    said = capsys.readouterr().err
    assert "is gone" in said
    assert str(temporary) in said


def test_a_folder_taken_over_by_another_is_left_alone(state: Path) -> None:
    """Its former owner uses a temporary folder, and keeps no file of the other one open."""
    with take_state(state) as taken:
        shutil.rmtree(state)
        with take_state(state):
            before = os.listdir("/proc/self/fd")
            taken.renew()
            assert taken.path != state
            assert len(os.listdir("/proc/self/fd")) == len(before)


def test_the_log_starts_anew_when_it_is_long(state: Path) -> None:
    """It and the previous file hold the last lines."""
    with take_state(state) as taken:
        log = Log(taken, max_bytes=100)
        for number in range(100):
            log.write(f"line {number}")
        log.close()
    files = [(state / name).read_text().splitlines() for name in ("triton.log.1", "triton.log")]
    assert all(len("\n".join(lines)) < 100 for lines in files)
    assert [*files[0], *files[1]] == [f"line {number}" for number in range(100)][-len(files[0]) - len(files[1]) :]
