"""The control key: its source, and files that are refused as keys."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from modelctl.embedded import control, installation
from modelctl.embedded.ports import Ports
from modelctl.embedded.server import Launch
from modelctl.embedded.state import StateFolder
from modelctl.errors import CommandError

KEY = "0123456789abcdef"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    """Return a state folder, with no key named in the environment."""
    monkeypatch.delenv(control.VARIABLE, raising=False)
    return StateFolder(tmp_path / "state")


def test_a_key_is_made_once(state: StateFolder) -> None:
    """The first start makes a key that only its owner may read; later ones use it."""
    key = control.of_server(state)
    file = state.path / control.FILE
    assert control.KEY.fullmatch(key)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert control.of_server(state) == key
    assert file.read_text().strip() == key


def test_git_does_not_see_the_key(state: StateFolder) -> None:
    """A state folder may lie in a checkout, under any name."""
    control.of_server(state)
    subprocess.run(["git", "init", "-q", state.path], check=True)
    seen = subprocess.run(["git", "-C", state.path, "status", "--porcelain"], check=True, capture_output=True)
    assert not seen.stdout


def test_an_empty_key_of_the_state_folder_is_made_anew(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may leave an empty file, which must not end the start."""
    monkeypatch.chdir(state.path)
    (state.path / control.DEFAULT.parent).symlink_to(state.path)
    (state.path / control.FILE).touch(0o600)
    assert "is made when Triton starts" in control.check()
    key = control.of_server(state)
    assert control.KEY.fullmatch(key)
    assert control.find() == key


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: None, "cannot be read (No such file or directory)"),
        (lambda file: file.write_text(""), "is empty"),
        (lambda file: file.write_text("short"), "does not hold 16 or more"),
        (lambda file: file.write_text("with spaces and more"), "does not hold 16 or more"),
        (lambda file: file.write_bytes(b"\xff" * 20), "does not hold 16 or more"),
        (lambda file: (file.write_text(KEY), file.chmod(0o604)), "is open to every user"),
        (lambda file: (file.write_text(KEY), file.chmod(0o602)), "is open to every user"),
        (lambda file: file.mkdir(0o700), "cannot be read (Is a directory)"),
        (lambda file: os.mkfifo(file, 0o600), "is not a regular file"),
    ],
)
def test_a_named_file_must_be_fit(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], reason: str
) -> None:
    """A file that is missing, empty, readable by others or irregular ends the start with its name."""
    file = state.path / "named"
    before = os.umask(0o077)
    try:
        make(file)
    finally:
        os.umask(before)
    monkeypatch.setenv(control.VARIABLE, str(file))
    with pytest.raises(CommandError, match="control key") as raised:
        control.of_server(state)
    assert reason in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_secret_of_kubernetes_can_be_named(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a link, and its group may read it."""
    file = state.path / "data"
    file.write_text(f"{KEY}\n")
    file.chmod(0o440)
    (state.path / "key").symlink_to(file)
    monkeypatch.setenv(control.VARIABLE, str(state.path / "key"))
    assert control.of_server(state) == KEY
    assert control.find() == KEY


def test_a_link_as_the_state_folders_key_is_not_followed(state: StateFolder) -> None:
    """Neither for reading nor, where it leads nowhere, for writing."""
    elsewhere = state.path / "elsewhere"
    (state.path / control.FILE).symlink_to(elsewhere)
    with pytest.raises(CommandError, match="cannot be read"):
        control.of_server(state)
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.1.1", "localhost.example", "")),
    ],
)
def test_control_is_open_to_this_machine_at_most(tmp_path: Path, host: str, is_loopback: bool) -> None:
    """Without a key Triton listens on loopback only; with a key its protocols are restricted everywhere."""
    paths = (tmp_path / "models", tmp_path / "backends", tmp_path / "state")
    launch = Launch(installation.find(), *paths, host, Ports(1, 2), (), key="")
    if is_loopback:
        assert not any("restricted" in word for word in launch.command(tmp_path))
    else:
        with pytest.raises(CommandError, match="without a key"):
            launch.command(tmp_path)
    line = Launch(installation.find(), *paths, host, Ports(1, 2), ("--log-info=1",)).command(tmp_path)
    assert any(word.startswith("--grpc-restricted-protocol=model-repository,shared-memory") for word in line)
    assert "--allow-http=false" in line
    assert line[-1] == "--log-info=1"
