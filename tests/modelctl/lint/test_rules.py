"""Every rule finds its broken repository and nothing else there, and has a proof."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelctl.lint.linter import lint
from modelctl.lint.rules import RULES, machine
from modelctl.plans import choice

HERE = Path(__file__).parent
# Found in most cases with a queue policy, because they set no queue limit; each case tests another rule.
UNBOUNDED = "TG053"


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of rules TG100 and TG101: without a GPU, with a given TensorRT."""
    monkeypatch.setattr(machine, "this_machine", lambda: choice.Machine("", "11.0.0"))


def test_a_broken_repository_is_found(case: Any, tmp_path: Path) -> None:
    """The linter finds the case's rule, with a place and a fix, and nothing else that the case does not list."""
    folder = case.write(tmp_path / "models")
    _, findings = lint(folder)
    expected = {case.code, *case.also}
    assert {finding.rule.code for finding in findings} - {UNBOUNDED} == expected - {UNBOUNDED}
    own = [finding for finding in findings if finding.rule.code == case.code]
    assert own
    for finding in own:
        assert finding.sentence.endswith(".")
        assert finding.path.exists()
        assert finding.line is None or finding.line <= len(finding.path.read_text().splitlines())


SEQUENCE = """
-- model --
platform: "onnxruntime_onnx"
max_batch_size: 1
input { name: "X" data_type: TYPE_FP32 dims: [2] }
output { name: "Y" data_type: TYPE_FP32 dims: [2] }
sequence_batching {
  control_input { name: "START" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [0, 1] } }
  state { input_name: "STATE" output_name: "NEXT" data_type: TYPE_FP32 dims: [2] }
}
batch_input { kind: BATCH_ELEMENT_COUNT target_name: "COUNT" data_type: TYPE_FP32 source_input: "X" }
-- model/1/model.onnx --
input X FP32 N 2
input START FP32 N 1
input STATE FP32 N 2
input COUNT FP32 N
output Y FP32 N 2
output NEXT FP32 N 2
"""
PLANS = """
-- model --
platform: "tensorrt_plan"
max_batch_size: 1
input { name: "X" data_type: TYPE_FP32 dims: [2] }
output { name: "Y" data_type: TYPE_FP32 dims: [2] }
cc_model_filenames { key: "8.0" value: "ampere.plan" }
-- model/1/ampere.plan --
"""


@pytest.mark.parametrize("text", [SEQUENCE, PLANS], ids=["sequence", "plans"])
def test_nvidias_own_ways_are_clean(text: str, make_case: Callable[[str], Any], tmp_path: Path) -> None:
    """Inputs that Triton fills, and plans named by compute capability, are not errors."""
    _, findings = lint(make_case(text).write(tmp_path / "models"))
    assert {finding.rule.code for finding in findings} <= {UNBOUNDED, machine.NO_GPU.code}


def test_the_server_refuses(refused: Any, refusal: Callable[[Any], str]) -> None:
    """The real server does not load the model, and gives the reason."""
    if refused.code == machine.NO_GPU.code and choice.nvidia_smi("name"):
        pytest.skip("this machine has a GPU")
    assert refused.refuses[1] in refusal(refused)


def test_every_rule_is_broken_and_proved() -> None:
    """Each rule has a case; a rule is proved by a case's `refuses`, or by a test of its own, or names its source."""
    cases = {path.stem: path.read_text() for path in (HERE / "cases").glob("*.txt")}
    refused = {
        name.split("-")[0] for name, text in cases.items() if text.startswith(("refuses", "variant tensorrt\nr"))
    }
    tested = {code.upper() for code in re.findall(r"def test_(tg\d{3})", (HERE / "test_proofs.py").read_text())}
    for code, rule in RULES.items():
        assert code in {name.split("-")[0] for name in cases}, code
        if rule.evidence == "documented":
            assert re.search(r"https://|docs/", rule.source), code
            assert code not in refused | tested, code
        else:
            assert code in (refused | tested if rule.evidence == "refuses" else tested), code


def test_rules_are_distinct() -> None:
    """Codes and titles are unique; texts are whole sentences, so that they can stand in a line."""
    assert len({rule.title for rule in RULES.values()}) == len(RULES)
    for code, rule in RULES.items():
        assert re.fullmatch(r"TG\d{3}", code)
        assert rule.why.endswith(".")
        assert rule.fix.endswith(".")
        assert not rule.title.endswith(".")
