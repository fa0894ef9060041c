"""A fast run starts no server: commands that unmarked tests may run, and fixtures that mark their tests."""

from __future__ import annotations

import subprocess
import sys

import pytest
import starts

from modelctl.embedded import installation

PYTHON = sys.executable


@pytest.mark.parametrize(
    "command",
    [
        [installation.find().binary, "--model-repository=models"],
        [PYTHON, "-m", "modelctl", "serve"],
        [PYTHON, "-m", "app"],
        ["uv", "venv"],
    ],
    ids=lambda command: str(command[-1]),
)
def test_a_fast_run_starts_no_server(
    command: list[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The process never begins, even if a test starts it."""
    monkeypatch.setattr(starts, "_unmarked", request.node.nodeid)  # as in a fast run
    with pytest.raises(RuntimeError, match=r"test_a_fast_run_starts_no_server.*mark it `server` or `slow`"):
        subprocess.Popen(command)


@pytest.mark.parametrize(
    "command",
    [
        [PYTHON, "-c", "print()"],
        [PYTHON, "-m", "modelctl", "serve", "--help"],
        [PYTHON, "-m", "modelctl", "list"],
        ["bash", "-c", "true"],
    ],
)
def test_other_commands_run(command: list[str]) -> None:
    """Commands without a server, and the help of those that have one."""
    assert starts.starts(command) is None


def test_a_fixture_that_starts_a_server_marks_its_tests(request: pytest.FixtureRequest) -> None:
    """All tests of a run that use one, by whatever fixtures, carry the mark; this one carries none."""
    marked = {item.nodeid for item in request.session.items if item.get_closest_marker("server")}
    using = {item.nodeid for item in request.session.items if "make_stack" in getattr(item, "fixturenames", ())}
    assert using <= marked
    assert request.node.nodeid not in marked
