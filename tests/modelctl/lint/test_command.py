"""The command: its output in each format, its exit codes, and its speed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from modelctl.lint import lines, onnx, report
from modelctl.lint.linter import lint

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """# a small model
backend: "echo"
max_batch_size: 8
input [
  { name: "X" data_type: TYPE_FP32 dims: [2] }
]
output [
  { name: "Y" data_type: TYPE_FP32 dims: [2] },
  { name: "Z" data_type: TYPE_FP32 dims: [2] }
]
dynamic_batching {
  preferred_batch_size: [16]
}
parameters { key: "task" value { string_value: "a {b} # c" } }
parameters { key: "other" value { string_value: "d" } }
"""
BOUND = "default_queue_policy { max_queue_size: 9 }"


def modelctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "modelctl", "lint", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A repository with one error, in line 12, and one warning."""
    (tmp_path / "small" / "1").mkdir(parents=True)
    (tmp_path / "small" / "config.pbtxt").write_text(CONFIG)
    (tmp_path / "alone" / "1").mkdir(parents=True)
    (tmp_path / "alone" / "config.pbtxt").write_text(CONFIG.replace("preferred_batch_size: [16]", BOUND))
    return tmp_path


def test_our_own_repository_is_clean() -> None:
    """Nothing is found in models/, warnings included."""
    done = modelctl("--strict")
    assert done.stdout == "13 models, 0 errors, 0 warnings\n"
    assert done.returncode == 0


def test_text_has_place_reason_and_fix(broken: Path) -> None:
    """Each finding has its file and line, code, sentence, field and fix; errors set the exit code."""
    done = modelctl(str(broken))
    lines_ = done.stdout.splitlines()
    assert lines_[2] == (
        f"{broken}/small/config.pbtxt:12: error TG050: A preferred batch size cannot occur. preferred_batch_size 16 is "
        "not from 1 to max_batch_size, which is 8. [dynamic_batching.preferred_batch_size]"
    )
    assert lines_[3].startswith("    Remove it")
    assert lines_[-1] == "2 models, 1 error, 1 warning"
    assert done.returncode == 1


def test_json_is_a_list_of_objects(broken: Path) -> None:
    """The fields are those that a program needs."""
    found = json.loads(modelctl("--format", "json", str(broken)).stdout)
    assert [(one["code"], one["severity"], one["model"], one["line"]) for one in found] == [
        ("TG054", "warning", "alone", 11),
        ("TG050", "error", "small", 12),
    ]
    assert found[1]["field"] == "dynamic_batching.preferred_batch_size"
    assert found[1]["evidence"] == "refuses"


def test_github_gets_workflow_commands(broken: Path) -> None:
    """Each finding is one line in GitHub's form."""
    done = modelctl("--format", "github", str(broken)).stdout.splitlines()
    assert done[0].startswith(
        f"::warning file={broken}/alone/config.pbtxt,line=11,title=TG054::A queue policy stalls the batcher."
    )
    assert done[1].startswith(f"::error file={broken}/small/config.pbtxt,line=12,title=TG050::A preferred")


def test_a_model_can_be_linted_alone(broken: Path) -> None:
    """A model's folder stands for the model; warnings alone exit 0, unless --strict is given."""
    done = modelctl(str(broken / "alone"))
    assert done.stdout.endswith("1 model, 0 errors, 1 warning\n")
    assert done.returncode == 0
    assert modelctl("--strict", str(broken / "alone")).returncode == 1


def test_a_queue_without_a_policy_is_clean(broken: Path) -> None:
    """Even outside the gateway a model needs no lint_ignore: a limit would stall it."""
    config = broken / "alone" / "config.pbtxt"
    config.write_text(config.read_text().replace(BOUND, "").replace('"task"', '"no task"'))
    assert modelctl("--strict", str(broken / "alone")).stdout == "1 model, 0 errors, 0 warnings\n"


def test_a_file_names_the_backend(tmp_path: Path) -> None:
    """A config without `backend` beside 1/model.py is complete: Triton reads the backend from the file name."""
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "model.py").write_text("")
    (tmp_path / "model" / "config.pbtxt").write_text(CONFIG.replace('backend: "echo"', "").replace("[16]", "[8]"))
    assert modelctl("--strict", str(tmp_path)).stdout == "1 model, 0 errors, 0 warnings\n"


def test_a_reason_silences_a_finding(broken: Path) -> None:
    """`lint_ignore` with a code and a reason removes a finding; a second entry may name another code."""
    ignore = 'parameters { key: "lint_ignore" value { string_value: "TG054: a; b; TG050: c" } }\n'
    for name, text in (("alone", ignore.replace("; TG050: c", "")), ("small", ignore.replace("TG054: a; b; ", ""))):
        with (broken / name / "config.pbtxt").open("a") as file:
            file.write(text)
    assert modelctl("--strict", str(broken)).stdout == "2 models, 0 errors, 0 warnings\n"


def test_a_rule_explains_itself() -> None:
    """--explain gives the reason, the fix, the server's behaviour and the source."""
    done = modelctl("--explain", "tg044")
    assert done.stdout.startswith("TG044 (error): Steps run at once")
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == ["Why", "Fix", "Server", "Source"]
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [["--explain", "TG999"], ["no/such/folder"], ["--format", "xml"]])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    """The error is on stderr, and counts neither as clean nor as a finding."""
    done = modelctl(*arguments)
    assert done.returncode == 2
    assert done.stderr


def test_the_page_is_written_by_the_rules() -> None:
    """docs/lint.md is what `modelctl lint --page` prints."""
    assert (ROOT / "docs/lint.md").read_text() == report.page()


def test_lines_are_found_in_every_writing() -> None:
    """Fields are found in lists and alone, by index and key, whatever strings and comments contain."""
    found = lines.locate(CONFIG)
    expected = {
        "max_batch_size": 3,
        "input[0].dims": 5,
        "output[1].name": 9,
        "dynamic_batching.preferred_batch_size": 12,
        'parameters["other"]': 15,
        "dynamic_batching.absent": 11,
        "output[7]": 7,
    }
    assert {field: lines.find(found, field) for field in expected} == expected
    assert lines.find(found, "version_policy") is None


@pytest.mark.parametrize("path", sorted(ROOT.glob("models/*/config.pbtxt")), ids=lambda path: path.parent.name)
def test_lines_know_every_field(path: Path) -> None:
    """In each of our configs every field that the parser sees has a line that names it."""
    text = path.read_text()
    message, found = text_format.Parse(text, model_config_pb2.ModelConfig()), lines.locate(text)
    for descriptor, _ in message.ListFields():
        assert descriptor.name in text.splitlines()[found[descriptor.name] - 1]


@pytest.mark.parametrize("path", sorted(ROOT.glob("models/*/1/model.onnx")), ids=lambda path: path.parent.parent.name)
def test_networks_are_read_as_by_onnx(path: Path) -> None:
    """Names, types and shapes are those that the onnx package reads."""
    import onnx as package

    graph = package.load(path, load_external_data=False).graph
    read = onnx.read(path)
    for given, expected in ((read.inputs, graph.input), (read.outputs, graph.output)):
        shapes = {one.name: tuple(d.dim_value or -1 for d in one.type.tensor_type.shape.dim) for one in expected}
        assert {name: tensor.shape for name, tensor in given.items()} == shapes
        types = {one.name: onnx.DATA_TYPES[one.type.tensor_type.elem_type] for one in expected}
        assert {name: tensor.data_type for name, tensor in given.items()} == types


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x3a\xff\x7f", b"\x80" * 20]
)
def test_invalid_networks_raise_onnx_error(content: bytes, tmp_path: Path) -> None:
    """Empty, foreign and truncated files, whatever their bytes are."""
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(onnx.OnnxError):
        onnx.read(tmp_path / "model.onnx")


def test_weights_are_not_read(tmp_path: Path, hundred: Callable[[Path, int], Any]) -> None:
    """100 models with 5 GB of weights are linted in about the time of small ones."""
    seconds = []
    for weights in (0, 200_000_000):
        hundred(tmp_path / str(weights), weights)
        begun = time.process_time()
        names, found = lint(tmp_path / str(weights))
        seconds.append(time.process_time() - begun)
        assert (len(names), found) == (100, [])
    assert seconds[1] < 3 * seconds[0]
