"""300 damaged networks are added to a running Triton: it outlives them, and the repository has what was added alone."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import mutations
import networks
import numpy as np
import odd_networks
import pytest
from sample_files import contents, labels
from test_damage import mutated
from test_refusals import HOW

COUNT = 300 if os.environ.get("FAULTS") == "full" else 10
"""CI sends a few; each takes a second or two."""


@pytest.mark.timeout(3000)
def test_damaged_networks_leave_triton_alone(
    command: Any, stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ends in a sentence, or is served and has answered; Triton never ends, and its models stay."""
    monkeypatch.setattr("modelctl.graphs.trial.CPU_SECONDS", 10)  # some loop
    files = {
        "picture": (networks.classifier(tmp_path / "picture.onnx"), (*HOW, "--labels", labels(tmp_path, 6))),
        "towers": (networks.two_towers(tmp_path / "towers.onnx"), ()),
        "heads": (odd_networks.cells(tmp_path / "heads.onnx"), ()),
        "bytes": (odd_networks.quantized(tmp_path / "bytes.onnx", "scale"), ("--task", "none")),
        "found": (odd_networks.found(tmp_path / "found.onnx"), ("--task", "none")),
    }
    whole = {name: path.read_bytes() for name, (path, _) in files.items()}
    before, source, added = contents(stack.models), np.random.default_rng(12), 0
    for number in range(COUNT):
        name = list(files)[number % len(files)]
        path, options = files[name]
        change = mutated if number % 3 == 0 else mutations.damaged
        path.write_bytes(change(whole[name], source))
        result = command.run("add", str(path), *options, "--name", "mutant")
        assert result.code in (0, 1), result.err
        assert "Traceback" not in result.err
        if result.code:
            assert result.err.rstrip().endswith("The repository is as before."), result.err
        else:
            added += 1
            with closing(stack.control()) as control:
                for folder in stack.models.glob("mutant*"):
                    control.unload(folder.name)
                    shutil.rmtree(folder)
        assert contents(stack.models) == before
        assert not list(stack.folder.glob(".modelctl-*"))
        with closing(stack.control()) as control:
            assert control.is_live(), result.err
            assert control.state("simple_net") == "READY"
    assert "Triton ended" not in (stack.folder / "triton.out").read_text()
    assert 0 < added < COUNT
