"""`python -m benchmarks` as a program: its `.env`, its refusals, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import commandline
from modelctl import console

ROOT = Path(__file__).resolve().parents[2]


def test_env_is_read_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable of `.env` is in the environment before the options are declared."""
    monkeypatch.setenv("TRITON_METRICS_PORT", "1")  # so that it is put back
    monkeypatch.delenv("TRITON_METRICS_PORT")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    (tmp_path / ".env").write_text("TRITON_METRICS_PORT=28002\n")

    def build() -> ArgumentParser:
        parser = ArgumentParser()
        parser.set_defaults(run=lambda arguments: arguments.found, found=int(os.environ["TRITON_METRICS_PORT"]))
        return parser

    monkeypatch.setattr(commandline, "build", build)
    assert program.main() == 28002


def test_a_refusal_is_a_sentence_and_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unreadable `.env` ends it with exit code 1, as every command of modelctl."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "growth", "--json"])
    (tmp_path / ".env").write_bytes(b"\xff")
    assert program.main() == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("benchmarks: .env cannot be read")
    assert json.loads(printed.out)["error"].startswith(".env cannot be read")


def test_a_missing_package_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A package that is not installed is a sentence; a module of ours that is missing is a defect."""

    def prepare(name: str) -> Namespace:
        raise ModuleNotFoundError(name=name)

    assert console.run("benchmarks", lambda: prepare("litserve.server")) == 1
    assert (
        capsys.readouterr().err == "benchmarks: This needs the package litserve.server, which is not installed here.\n"
    )
    with pytest.raises(ModuleNotFoundError):
        console.run("benchmarks", lambda: prepare("benchmarks.load"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_imports_ends_it_at_once(number: signal.Signals) -> None:
    """The exit code is that of shells, and nothing is printed."""
    script = (
        "import os, sys\nfrom modelctl import console\n"
        f"sys.exit(console.run('benchmarks', lambda: os.kill(os.getpid(), {int(number)})))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")
