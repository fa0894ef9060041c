"""The choice between ONNX and TensorRT plans, where no server is needed to see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelctl.plans.choice import Machine, choose


@pytest.mark.parametrize("record", ["{}", "[1]", "no JSON", None])
def test_a_broken_plan_is_a_reason(tmp_path: Path, record: str | None) -> None:
    """Without the network or the record that a plan was built from, ONNX is chosen and one sentence says why."""
    version = tmp_path / "network" / "1"
    version.mkdir(parents=True)
    (version / "model.plan").touch()
    (tmp_path / "network" / "configs").mkdir()
    (tmp_path / "network" / "configs" / "tensorrt.pbtxt").touch()
    if record is not None:
        (version / "model.plan.json").write_text(record)
    choice = choose(tmp_path, ["network"], Machine("9.0", "10.1.0"))
    fault = "model.onnx cannot be read (No such file" if record == "{}" else "does not say what it was built from"
    assert not choice.plans
    assert fault in choice.reason
