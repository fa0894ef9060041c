"""Sentences about invalid settings: the documented variable, its value, and the allowed values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import VARIABLES, Settings, SettingsError, read, sources

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("GATEWAY_PORT", "tcp://10.0.0.1:80", "is 'tcp://10.0.0.1:80'; it may be a whole number, 0 to 65535."),
        ("TRITON_GRPC_PORT", "80a", "is '80a'; it may be a whole number, 1 to 65535."),
        ("TRITON_GRPC_PORT", "0", "is '0'; it may be a whole number, 1 to 65535."),
        ("GATEWAY_BODY_TIMEOUT_S", "0", "is '0'; it may be a number, more than 0."),
        ("GATEWAY_JOIN_ITEMS", "maybe", "is 'maybe'; it may be true, false."),
        ("GATEWAY_LOG_LEVEL", "loud", "is 'loud'; it may be debug, info, warning, error."),
        (
            "GATEWAY_HOST",
            "http://a",
            ": 'http://a' is not an address to listen on, such as 0.0.0.0, without scheme and port.",
        ),
        ("GATEWAY_HOST", "a:80", ": 'a:80' is not an address to listen on, such as 0.0.0.0, without scheme and port."),
        (
            "GATEWAY_HOSTS",
            "http://a",
            ": 'http://a' is neither a host name (without scheme and port) nor *.name nor *.",
        ),
        (
            "GATEWAY_IMAGE_URL_HOSTS",
            "https://a.example",
            ": 'https://a.example' is not a host name such as images.example.com, without scheme and port.",
        ),
    ],
)
@pytest.mark.parametrize("written", [False, True])
def test_a_fault_names_the_variable_and_its_allowed_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, sentence: str, written: bool
) -> None:
    """It names the file too, if the value is there; never pydantic's words."""
    monkeypatch.chdir(tmp_path)
    if written:
        (tmp_path / ".env").write_text(f"{variable}={value}\n")
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        read()
    where = " in .env" if written else ""
    gap = "" if sentence.startswith(":") else " "
    assert caught.value.faults == [f"{variable}{where}{gap}{sentence}"]


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::", "::1", "fe80::1%eth0", "gateway.example"])
def test_addresses_to_listen_on_pass(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("GATEWAY_HOST", host)
    assert read().host == host


def test_words_may_be_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_LOG_LEVEL", "INFO")
    monkeypatch.setenv("GATEWAY_LOG_FORMAT", "JSON")
    assert (read().log_level, read().log_format) == ("info", "json")


def test_empty_means_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty variable of the environment overrides `.env`; an empty one in `.env` counts too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("GATEWAY_WORKERS=3\nGATEWAY_HOST=\n")
    monkeypatch.setenv("GATEWAY_WORKERS", "")
    monkeypatch.delenv("GATEWAY_HOST", raising=False)
    assert (read().workers, read().host) == (1, "127.0.0.1")
    assert not {"GATEWAY_WORKERS", "GATEWAY_HOST"} & sources().keys()


def test_the_start_ends_with_these_sentences(tmp_path: Path) -> None:
    """One line for each fault, and exit code 2."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_GRPC_PORT": "x", "GATEWAY_PORT": "y"}
    command = [sys.executable, "-m", "app"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [
            "GATEWAY_PORT is 'y'; it may be a whole number, 0 to 65535.",
            "TRITON_GRPC_PORT is 'x'; it may be a whole number, 1 to 65535.",
        ],
    )


def test_every_setting_has_one_variable() -> None:
    assert sorted(VARIABLES.values()) == sorted(Settings.model_fields)
