"""A disk for --state that is full, read-only or gone: Triton serves on, and dead processes come back."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from broken import Triton, until
from tritonclient.utils import InferenceServerException

DISK_BYTES = 6_000_000
"""Room for the backends that are put together, and not for them twice."""


def mount(*arguments: str) -> None:
    """Call mount(8)."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@pytest.fixture
def triton(make_stack: Callable[..., Any]) -> Iterator[Triton]:
    """Return a running Triton with a small disk as its state folder, and a gateway."""
    if os.geteuid():
        pytest.skip(
            "a disk can be mounted by root only; tests/modelctl/embedded/test_state.py has what anybody can test"
        )
    stack = make_stack((), test_models=False)
    made = Triton(stack)
    stack.state.mkdir()
    mount("-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "none", str(stack.state))
    # The lock, which is open all the time, would keep its disk from being made read-only.
    for lock in (stack.folder / "serve.lock", stack.state / "serve.lock"):
        lock.touch()
    mount("--bind", str(stack.folder / "serve.lock"), str(stack.state / "serve.lock"))
    stack.start_triton()
    stack.start_gateway()
    try:
        stack.wait_ready()
        yield made
    finally:
        stack.stop()
        subprocess.run(["umount", "--lazy", str(stack.state)], capture_output=True, check=False)


def fill(folder: Path) -> None:
    """Fill a disk to its last byte."""
    with (folder / "filler").open("wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def answers(triton: Triton) -> bool:
    """Return whether the model answers in Triton itself."""
    try:
        triton.stack.infer("paced", 2, text=np.array([["a"]], np.object_))
    except InferenceServerException:
        return False
    return True


def said(triton: Triton) -> str:
    """Return the supervisor's output."""
    return str((triton.stack.folder / "triton.out").read_text())


def must_come_back(triton: Triton, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Kill the server, do something while it is gone, and assert that server and gateway serve again."""
    before = triton.process
    triton.kill()
    meanwhile()
    until(lambda: triton.process not in (None, before) and answers(triton), 20)
    until(lambda: httpx.get(f"{triton.stack.url}/readyz", trust_env=False).status_code == 200, 15)
    assert triton.stack.triton.poll() is None
    assert triton.stack.gateway.poll() is None


def must_be_repaired(triton: Triton) -> None:
    """Kill the step's process, and assert that it is loaded again."""
    server = triton.process
    assert server is not None
    for step in server.children():
        step.kill()
    until(lambda: "paced serves again" in said(triton) and answers(triton), 20)


# Two tests, since the supervisor waits twice as long from death to death.
def test_a_disk_that_cannot_be_written_ends_no_service(triton: Triton) -> None:
    """Full or read-only: each killed server comes back, and so does a dead step."""
    stack = triton.stack
    fill(stack.state)
    must_come_back(triton)
    must_be_repaired(triton)
    assert "triton.log cannot be written (No space left on device)" in said(triton)
    assert "server.json cannot be written (No space left on device)" in said(triton)
    assert "Triton starts with the previous backends" in said(triton)
    (stack.state / "filler").unlink()

    def remount() -> bool:
        return not subprocess.run(["mount", "-o", "remount,ro", stack.state], capture_output=True).returncode

    must_come_back(triton, lambda: until(remount, 5))  # busy until the log is closed
    assert "Read-only file system" in said(triton)
    assert "Traceback" not in said(triton)


def test_the_loss_of_state_ends_no_service(triton: Triton) -> None:
    """Missing, or replaced by a file: each killed server comes back, and so does a dead step."""
    stack = triton.stack
    subprocess.run(["umount", "--lazy", str(stack.state)], check=True)
    must_come_back(triton)
    assert (stack.state / "server.json").exists()
    assert f"{stack.state} is gone: it is made again." in said(triton)

    shutil.rmtree(stack.state)
    stack.state.write_text("no folder")
    must_come_back(triton)
    must_be_repaired(triton)
    assert "cannot be used: log and parts of Triton are in" in said(triton)
    assert "Traceback" not in said(triton)
    stack.stop()
    assert stack.triton.returncode == 0
    assert stack.state.read_text() == "no folder"


def test_a_first_start_without_room_is_refused(make_stack: Callable[..., Any]) -> None:
    """One sentence says that the folder cannot be written, and no process is left."""
    if os.geteuid():
        pytest.skip("a disk can be mounted by root only")
    stack = make_stack((), test_models=False)
    Triton(stack)
    stack.state.mkdir()
    mount("-t", "tmpfs", "-o", "size=100k,mode=700", "none", str(stack.state))
    try:
        stack.start_triton()
        assert stack.triton.wait(30) == 1
    finally:
        subprocess.run(["umount", "--lazy", str(stack.state)], check=True)
    last = (stack.folder / "triton.out").read_text().splitlines()[-1]
    assert last == (
        f"modelctl: {stack.state} cannot be written (No space left on device): give another folder with --state."
    )
