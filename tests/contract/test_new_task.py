"""A task is added in the places that CONTRIBUTING names, and nowhere else: this adds one to a copy of the code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TOY = Path(__file__).parent / "toy_task"
NEW = ("app/tasks/topic.py", "stages/topic.py", "backends/topic_postprocess/model.py", "models/toy/model.yaml")
"""Files of the toy task, in `toy_task` as they stand in the copy."""
ENTRIES = {
    "app/tasks/__init__.py": {
        "import classification, detection, sentiment\n": "import classification, detection, sentiment, topic\n",
        "sentiment.TASK)": "sentiment.TASK, topic.TASK)",
    },
    "modelctl/models/spec.py": {
        "class TensorModel(Model):": '''class TextTopic(Ensemble):
    """A text -> its topic."""

    task: Literal["text-topic"]
    preprocess: TextPreprocess
    postprocess: TextPostprocess = TextPostprocess()


class TensorModel(Model):''',
        "EnsembleSpec = ": "EnsembleSpec = TextTopic | ",
    },
    "modelctl/models/tasks.py": {
        '    "text-classification": Task(': """    "text-topic": Task(
        route="topic",
        input="text",
        sample="The match ended with three goals.",
        preprocess="text_tokenize",
        extras={"token_count": ("INT32", [1]), "truncated": ("BOOL", [1])},
        postprocess="topic_postprocess",
        carried={},
        answer={"topic": ("STRING", [1])},
    ),
    "text-classification": Task(""",
    },
}
"""What the toy task adds to the files that list tasks: place -> text there."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the code with the toy task, its configurations rendered."""
    folder = tmp_path_factory.mktemp("tree")
    for room in ("app", "backends", "modelctl", "stages", "tests/standins"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in NEW:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOY / name, folder / name)
    for name, edits in ENTRIES.items():
        text = (folder / name).read_text()
        for before, after in edits.items():
            assert text.count(before) == 1, (name, before)
            text = text.replace(before, after)
        (folder / name).write_text(text)
    python(folder, "-m", "modelctl", "render", "--models", "models")
    return folder


def python(tree: Path, *arguments: str) -> str:
    """Run Python with the copy's code; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_contributing_names_these_places() -> None:
    """Its table row for a task names them; the model counts too, because a task needs one."""
    (row,) = (line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| a task |"))
    for place in ("app/tasks/", "stages/", "backends/", *ENTRIES):
        assert f"`{place}`" in row


def test_the_configurations_of_a_new_task_are_rendered(tree: Path) -> None:
    """Those of the ensemble and its three steps; each Python step finds its backend."""
    found = {path.parent.name: path.read_text() for path in (tree / "models").glob("*/config.pbtxt")}
    assert found.keys() == {"toy", "toy_preprocess", "toy_network", "toy_postprocess"}
    assert 'string_value: "text-topic"' in found["toy"]
    assert 'backend: "topic_postprocess"' in found["toy_postprocess"]
    assert (tree / "backends" / "topic_postprocess" / "model.py").is_file()


def test_the_route_of_a_new_task_answers(tree: Path) -> None:
    """Its step turns made-up logits into the answer; the gateway reads the model's rendered configuration."""
    said = json.loads(python(tree, str(TOY / "ask.py")).splitlines()[-1])  # after what it logs
    assert said["fault"] == ""
    assert said["paths"] == ["/v1/topic", "/v1/topic/batch"]
    assert said["status"] == 200
    assert said["answer"]["topic"] == "sports"
    assert said["answer"]["model"] == "toy"


def test_modelctl_knows_a_new_task(tree: Path) -> None:
    """`add` offers it, and the example request uses its sample."""
    assert "text-topic" in python(tree, "-m", "modelctl", "add", "--help")
    script = "from modelctl.embedded.stack import _curl, TASKS; print(_curl(TASKS['text-topic'], 'http://h'))"
    assert "goals" in python(tree, "-c", script)
