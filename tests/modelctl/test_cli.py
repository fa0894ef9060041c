"""The command line: mistyped words, shell completion, JSON and colours."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from modelctl.cli import COMMANDS
from modelctl.commands import completion

ROOT = Path(__file__).resolve().parents[2]


def modelctl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command like a user, without a terminal."""
    command = [sys.executable, "-m", "modelctl", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["serv"], "serve"),
        (["lint", "--strct"], "--strict"),
        (["lint", "--format", "jsn"], "json"),
        (["bench", "instnces"], "instances"),
        (["bench", "instances", "simple_net", "--calers", "2"], "--callers"),
        (["add", "finbrt"], "finbert"),
        (["render", "lite_detectr"], "lite_detector"),
        (["serve", "--model", "lite_detectr"], "lite_detector"),
        (["lint", "--explain", "TG0444"], "TG044"),
    ],
    ids=" ".join,
)
def test_a_mistyped_word_is_answered_with_the_one_that_was_meant(words: list[str], meant: str, tmp_path: Path) -> None:
    state = ["--state", str(tmp_path)] if words[0] == "serve" else []
    done = modelctl(*words, *state)
    assert done.returncode in (1, 2)
    assert f"Did you mean {meant}?" in done.stderr
    assert not done.stdout


def test_a_health_check_loads_little() -> None:
    """`ready` runs every half minute, and imports neither Pillow, pydantic nor ruamel.yaml."""
    code = "import sys, modelctl.commands.ready; print(sorted({'PIL', 'pydantic', 'ruamel'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_is_like_nothing_is_not_guessed_at() -> None:
    assert "Did you mean" not in modelctl("xyzzy").stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("modelctl ren", {"render"}),
        ("modelctl lint --str", {"--strict"}),
        ("modelctl bench instances --rou", {"--rounds"}),
        ("modelctl lint --format ", {"text", "json", "github"}),
        ("modelctl verify mini", {"minilm_sentiment"}),
        ("modelctl add fin", {"finbert"}),
    ],
)
def test_bash_completes(words: str, expected: set[str]) -> None:
    """The printed script in a real bash: its function's completions at the end of a line."""
    script = modelctl("completion", "bash").stdout
    line = f"""{script}
COMP_WORDS=({words} {"''" if words.endswith(" ") else ""}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
name=$(complete -p modelctl | sed 's/.* -F \\([^ ]*\\) .*/\\1/'); $name; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_every_command(shell: str) -> None:
    """The scripts hold all commands. No shell is installed here; zsh 5.9 and fish 3.6 were tried by hand."""
    script = modelctl("completion", shell).stdout
    assert [name for name in COMMANDS if name not in script] == []


def test_what_shells_run_suits_all_of_them() -> None:
    """Fish reads it within double quotes, and fish and zsh refuse a glob that nothing fits."""
    assert not set('$"*?`') & set(completion.MODELS + completion.FILES)


def test_every_command_with_results_gives_them_as_json() -> None:
    """Except servers, which run until stopped, and the completion script."""
    without = [name for name in COMMANDS if "--json" not in modelctl(name, *_measurement(name), "--help").stdout]
    assert without == ["serve", "up", "completion"]


def _measurement(name: str) -> list[str]:
    return ["instances"] if name == "bench" else []


def test_json_is_all_that_standard_output_holds() -> None:
    assert json.loads(modelctl("render", "--check", "--json").stdout) == []
    assert json.loads(modelctl("lint", "--json").stdout) == []
    assert json.loads(modelctl("lint", "--explain", "tg044", "--json").stdout)["code"] == "TG044"
    plans = json.loads(modelctl("plan", "--dry-run", "--json", "lite_detector").stdout)
    assert {(row["name"], row["tensorrt"]) for row in plans} == {("lite_detector_network", v) for v in ("10", "11")}
    assert all(command and all(isinstance(word, str) for word in command) for command in plans[0]["commands"])


@pytest.mark.parametrize("words", [("render", "nothing"), ("lint", "nothing"), ("add", "nothing"), ("list",)])
def test_a_failure_is_json_too(words: tuple[str, ...], tmp_path: Path) -> None:
    """An object with the sentence of standard error, and the same exit code."""
    options = [] if words[0] == "lint" else ["--models", str(tmp_path / "absent")]
    plain, done = modelctl(*words, *options), modelctl(*words, *options, "--json")
    sentence = json.loads(done.stdout)["error"]
    assert sentence in plain.stderr
    assert (plain.returncode, plain.stdout) == (done.returncode, "")


def on_terminal(*arguments: str, **environment: str) -> str:
    """Return a command's output on a terminal."""
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "modelctl", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TERM": "xterm", **environment}, stdout=its) as process:
        os.close(its)
        said = b""
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:  # the other end is closed
            pass
        process.wait()
    os.close(ours)
    return said.decode()


def test_colours_are_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.pbtxt").write_text("this is no config")
    case = str(tmp_path)
    for words, coloured in ((["doctor"], "\x1b[32mOK"), (["lint", case], "\x1b[31merror TG001\x1b[0m")):
        assert coloured in on_terminal(*words)
        assert "\x1b" not in on_terminal(*words, NO_COLOR="1")
        assert "\x1b" not in on_terminal(*words, TERM="dumb")
        assert "\x1b" not in modelctl(*words).stdout


STOPPED = """
import time
from argparse import Namespace
from modelctl import console
from modelctl.errors import CommandError

class Call:
    def __del__(self):
        time.sleep(60)

def work(_):
    call = Call()
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise CommandError("net was not added: stopped.") from None

console.leave(console.run("modelctl", lambda: Namespace(run=work)))
"""


def test_a_stop_waits_for_no_finalizer() -> None:
    """As that of a gRPC channel, whose interrupted call never ends."""
    done = subprocess.run([sys.executable, "-c", STOPPED], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (1, "modelctl: net was not added: stopped.\n")


DROPPED = """
import os, signal, subprocess, time
from argparse import Namespace
from modelctl import console

class Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def fork():
    os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGINT))
    subprocess.run(["true"], preexec_fn=os.getpid)

def work(_):
    {how}
    time.sleep(60)

console.leave(console.run("modelctl", lambda: Namespace(run=work)))
"""


@pytest.mark.parametrize("how", ["fork()", "Finalized()"])
def test_ctrl_c_that_python_drops_comes_again(how: str) -> None:
    """Around a fork, and in a finalizer, Python drops exceptions: one Ctrl-C ends the command nevertheless."""
    words = [sys.executable, "-c", DROPPED.format(how=how)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (130, "modelctl: stopped.\n")
