"""Every curl example of the documentation, sent to a real stack, gives the answer printed below it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
TESTED_ELSEWHERE = ("client.md", "dialects.md")
"""Their programs use packages of their own, and have tests of their own."""
SCORE = 1e-3
"""How far a number may be from the one that is printed."""


@dataclass(frozen=True)
class Example:
    """A command, and the answer that is printed."""

    page: str
    command: str
    answer: str


def examples() -> list[Example]:
    """Return the commands of `console` blocks, the lines with `$ `, each with its answer below."""
    found = []
    for path in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, answer = part.partition("\n")
                found.append(Example(path.name, command, answer))
    return found


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Any]) -> Any:
    """Return a stack with the bundled models, once it answers."""
    made = make_stack(test_models=False)
    made.start()
    return made


def same(printed: Any, answered: Any, name: str = "") -> bool:
    """Compare answers; ids may differ, and numbers may differ slightly between machines."""
    if isinstance(printed, dict) and isinstance(answered, dict):
        return printed.keys() == answered.keys() and all(same(printed[key], answered[key], key) for key in printed)
    if isinstance(printed, list) and isinstance(answered, list):
        return len(printed) == len(answered) and all(map(same, printed, answered))
    if isinstance(printed, float) and isinstance(answered, int | float):
        return abs(printed - answered) <= SCORE * max(1, abs(printed))
    if name == "request_id":
        return isinstance(answered, str)
    return bool(printed == answered)


def programs() -> list[Example]:
    """Return the content of the `python` blocks."""
    found = []
    for path in (path for path in PAGES if path.name not in TESTED_ELSEWHERE):
        found += [
            Example(path.name, block, "")
            for block in re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        ]
    return found


def test_different_answers_are_noticed() -> None:
    """Another label or number, an additional item or a missing key is a difference; another id is not."""
    printed = {"request_id": "01-...", "predictions": [{"label": "cup", "score": 0.5}]}
    others = [
        {"request_id": "02", "predictions": []},
        {"request_id": "02", "predictions": [{"label": "mug", "score": 0.5}]},
        {"request_id": "02", "predictions": [{"label": "cup", "score": 0.502}]},
        {"predictions": [{"label": "cup", "score": 0.5}]},
    ]
    assert same(printed, {"request_id": "02", "predictions": [{"label": "cup", "score": 0.5004}]})
    assert not any(same(printed, other) for other in others)


def test_there_are_examples() -> None:
    assert {example.page for example in examples()} >= {"README.md", "index.md", "tasks.md"}
    assert len(examples()) > 15


@pytest.mark.parametrize("example", examples(), ids=lambda example: f"{example.page}: {example.command[:60]}")
def test_the_answer_is_the_one_that_is_printed(example: Example, stack: Any) -> None:
    command = example.command.replace("127.0.0.1:8080", f"127.0.0.1:{stack.port}")
    command = command.replace("127.0.0.1:8001", f"127.0.0.1:{stack.grpc}")
    assert command != example.command, "the example names neither server"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert same(json.loads(example.answer), json.loads(done.stdout)), done.stdout


@pytest.mark.parametrize("program", programs(), ids=lambda program: f"{program.page}: {len(program.command)}")
def test_a_program_runs(program: Example, stack: Any, tmp_path: Path) -> None:
    """It runs in a folder with the same paths to the samples as the project's."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    code = program.command.replace("127.0.0.1:8080", f"127.0.0.1:{stack.port}")
    code = code.replace("127.0.0.1:8001", f"127.0.0.1:{stack.grpc}")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout or [path for path in tmp_path.iterdir() if path.name != "docs"]
