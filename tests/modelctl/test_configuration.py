"""One configuration: `.env` applies to every command, and errors use the names that a person wrote."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.settings import VARIABLES
from modelctl import configuration
from modelctl.embedded import diagnosis, stack
from modelctl.errors import CommandError

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = """
# ports of this folder
GATEWAY_PORT="28080"   # quoted, with a comment
export TRITON_GRPC_PORT=28001
TRITON_METRICS_PORT = '28002'
GATEWAY_LOG_LEVEL=INFO
PATH=/nowhere
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Enter a folder with the gateway's code, an `.env`, and an environment without settings; restore it."""
    for name in ("app", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".env").write_text(WRITTEN)
    kept = dict(os.environ)
    for name in kept:
        if name.startswith(configuration.PREFIXES):
            del os.environ[name]
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    os.environ.clear()
    os.environ.update(kept)


def modelctl(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the current folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    command = [sys.executable, "-m", "modelctl", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def config(**settings: str) -> dict[str, dict[str, Any]]:
    """Return what `modelctl config --json` prints, by name."""
    done = modelctl("config", "--json", **settings)
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_env_file_is_read_with_quotes_comments_and_export(folder: Path) -> None:
    """As the gateway reads it; the environment wins, and what is not the project's stays out."""
    os.environ["TRITON_METRICS_PORT"] = "1"
    path = os.environ["PATH"]
    taken = configuration.load()
    assert taken == {"GATEWAY_PORT", "TRITON_GRPC_PORT", "GATEWAY_LOG_LEVEL"}
    assert os.environ["GATEWAY_PORT"] == "28080"
    assert os.environ["TRITON_GRPC_PORT"] == "28001"
    assert (os.environ["TRITON_METRICS_PORT"], os.environ["PATH"]) == ("1", path)


def test_an_empty_variable_stands_for_the_default(folder: Path) -> None:
    """In `modelctl`, the gateway and Compose alike, whatever `.env` says."""
    rows = config(GATEWAY_PORT="", TRITON_GRPC_PORT="")
    assert rows["GATEWAY_PORT"] == {"name": "GATEWAY_PORT", "value": 8080, "source": "default", "up": None}
    assert rows["TRITON_GRPC_PORT"]["value"] == 8001


def test_commands_look_at_the_ports_of_the_env_file(folder: Path) -> None:
    """Not at 8001, where another stack may run."""
    shutil.copytree(ROOT / "models" / "simple_net", folder / "models" / "simple_net")
    done = modelctl("load", "simple_net")
    assert done.returncode == 1
    assert "No Triton answers on port 28001" in done.stderr


def test_config_prints_values_and_sources(folder: Path) -> None:
    """Every setting of the gateway, and those that only `modelctl` reads."""
    rows = config(GATEWAY_WORKERS="2")
    assert rows.keys() == {*VARIABLES, "TRITON_METRICS_PORT", "MODELOPT_PYTHON", "ULTRALYTICS_PYTHON"}
    told = {name: (rows[name]["value"], rows[name]["source"]) for name in rows}
    assert told["GATEWAY_WORKERS"] == (2, "environment")
    assert told["GATEWAY_PORT"] == (28080, ".env")
    assert told["GATEWAY_LOG_LEVEL"] == ("info", ".env")
    assert told["TRITON_METRICS_PORT"] == (28002, ".env")
    assert told["GATEWAY_HOST"] == ("127.0.0.1", "default")
    assert (rows["GATEWAY_LOG_LEVEL"]["up"], rows["GATEWAY_DRAIN_TIMEOUT_S"]["up"]) == (None, "2")
    done = modelctl("config", GATEWAY_HOTS="a")
    assert "no setting reads GATEWAY_HOTS (environment). Did you mean GATEWAY_HOSTS?" in done.stderr
    assert any(line.split() == ["GATEWAY_PORT", "28080", ".env"] for line in done.stdout.splitlines())


def test_config_works_without_a_gateway(folder: Path) -> None:
    """Triton's container has no gateway."""
    (folder / "app").unlink()
    rows = config()
    assert rows["TRITON_GRPC_PORT"]["source"] == ".env"
    assert not {"GATEWAY_HOST", "GATEWAY_WORKERS"} & rows.keys()


@pytest.mark.parametrize("command", ["up", "config"])
def test_a_wrong_setting_is_one_sentence_before_triton_starts(folder: Path, command: str) -> None:
    """It names the variable, its source and its allowed values; nothing has started."""
    with (folder / ".env").open("a") as file:
        file.write("GATEWAY_WORKERS=many\n")
    done = modelctl(command)
    assert done.returncode == 1
    assert done.stderr == "modelctl: GATEWAY_WORKERS in .env is 'many'; it may be a whole number, 1 to 64.\n"
    assert not (folder / ".triton").exists()


def test_an_env_file_that_cannot_be_read_is_one_sentence(folder: Path) -> None:
    (folder / ".env").write_bytes(b"GATEWAY_HOSTS=\xff\n")
    done = modelctl("config")
    assert (done.returncode, done.stderr) == (1, "modelctl: .env cannot be read: it is not UTF-8.\n")


def test_a_gateway_that_fails_is_one_sentence(folder: Path) -> None:
    """For example without its packages."""
    (folder / "app").unlink()
    (folder / "app").mkdir()
    (folder / "app" / "settings.py").write_text("import nobody_has_this")
    with pytest.raises(CommandError, match=r"does not report its settings: ModuleNotFoundError.*nobody_has_this"):
        configuration.gateway(())


def test_up_keeps_the_settings_of_the_env_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own defaults apply only to names that neither the environment nor `.env` sets."""
    started: list[dict[str, str]] = []
    monkeypatch.setattr(stack.subprocess, "Popen", lambda *_, env, **__: started.append(env))
    configuration.load()
    stack.Stack(1, 2, folder / ".triton", 3)._start("app")
    assert (started[0]["GATEWAY_LOG_LEVEL"], started[0]["GATEWAY_DRAIN_TIMEOUT_S"]) == ("INFO", "2")


SERVER = """
import signal, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
signal.pause()
"""


@pytest.mark.parametrize("own", [True, False])
def test_doctor_knows_the_running_stack_of_its_folder(folder: Path, own: bool) -> None:
    """A port of its own gateway is fine; a port of another folder's gateway is a warning."""
    (folder / "app").unlink()
    home = folder if own else folder / "elsewhere"
    (home / "app").mkdir(parents=True)
    (home / "app" / "__main__.py").write_text(SERVER)
    command = [sys.executable, "-m", "app"]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        number = gateway.stdout.readline().strip()
        os.environ["GATEWAY_PORT"] = number
        try:
            finding = diagnosis._port("GATEWAY_PORT")
        finally:
            gateway.send_signal(signal.SIGKILL)
    assert finding.result == ("ok" if own else "warning")
    assert ("this folder's running gateway" in finding.text) is own


def test_doctor_warns_of_ports_of_other_programs(folder: Path) -> None:
    """Even of other programs started in this folder."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        os.environ["TRITON_GRPC_PORT"] = str(other.getsockname()[1])
        assert diagnosis._port("TRITON_GRPC_PORT").result == "warning"


def test_doctor_checks_settings(folder: Path) -> None:
    """An error that would end the start fails; an unknown name is a warning."""
    (folder / ".env").write_text("GATEWAY_JOIN_ITEMS=maybe\n")
    findings = [finding for finding in diagnosis.examine(configuration.load()) if finding.check == "settings"]
    assert [finding.text for finding in findings] == ["GATEWAY_JOIN_ITEMS in .env is 'maybe'; it may be true, false."]
    assert findings[0].result == "fail"
    (folder / ".env").write_text("GATEWAY_HOTS=a\n")
    os.environ.pop("GATEWAY_JOIN_ITEMS")
    findings = [finding for finding in diagnosis.examine(configuration.load()) if finding.check == "settings"]
    assert [(finding.result, finding.text) for finding in findings] == [
        ("warning", "No setting reads GATEWAY_HOTS. Did you mean GATEWAY_HOSTS?")
    ]


def test_the_start_script_leaves_settings_to_modelctl() -> None:
    """Only one program reads `.env`, and it knows quotes and comments."""
    assert not re.search(r"(?<!requirements/)\.env\b", (ROOT / "dev_start.sh").read_text())
