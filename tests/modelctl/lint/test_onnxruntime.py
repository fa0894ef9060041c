"""What NVIDIA's ONNX Runtime backend takes is clean to the linter, loads on the real server, and is answered rightly.

What it refuses are the cases TG005-folder, TG071 to TG079.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelctl.lint.linter import lint

TAKEN = """
-- reshaped --
backend: "onnxruntime"
max_batch_size: 4
input { name: "X" data_type: TYPE_FP32 dims: [1, 2] reshape { shape: [2] } }
output { name: "Y" data_type: TYPE_FP32 dims: [2, 1] reshape { shape: [2] } }
dynamic_batching { }
-- reshaped/1/model.onnx --
input X FP32 N 2
output Y FP32 N 2
-- flat --
backend: "onnxruntime"
max_batch_size: 4
input { name: "X" data_type: TYPE_FP32 dims: [1] reshape { } }
output { name: "Y" data_type: TYPE_FP32 dims: [1] reshape { } }
dynamic_batching { }
-- flat/1/model.onnx --
input X FP32 N
output Y FP32 N
-- folder --
backend: "onnxruntime"
input { name: "X" data_type: TYPE_FP32 dims: [1, 2] }
output { name: "Y" data_type: TYPE_FP32 dims: [1, 2] }
parameters { key: "enable_mem_arena" value { string_value: "on" } }
parameters { key: "enable_mem_pattern" value { string_value: "Off" } }
parameters { key: "execution_mode" value { string_value: "1" } }
optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }
-- folder/1/model.onnx/model.onnx --
external weights.bin
input X FP32 1 2
output Y FP32 1 2
-- folder/1/model.onnx/weights.bin --
ABCDEFGH
-- number --
backend: "onnxruntime"
input { name: "X" data_type: TYPE_FP32 dims: [1] }
output { name: "Y" data_type: TYPE_FP32 dims: [1] }
-- number/1/model.onnx --
input X FP32
output Y FP32
-- strings --
backend: "onnxruntime"
max_batch_size: 4
input { name: "X" data_type: TYPE_STRING dims: [1] }
output { name: "Y" data_type: TYPE_STRING dims: [1] }
dynamic_batching { }
-- strings/1/model.onnx --
input X STRING N 1
output Y STRING N 1
"""
PAIR = np.array([[1, 2]], np.float32)
SENT = {
    "reshaped": (PAIR[None], PAIR.reshape(1, 2, 1)),
    "flat": (PAIR.T, PAIR.T),
    "folder": (PAIR, PAIR + np.frombuffer(b"ABCDEFGH", np.float32)),
    "number": (PAIR[0, :1], PAIR[0, :1]),
    "strings": (np.array([["grün".encode()], [b"b"]], np.object_), np.array([["grün".encode()], [b"b"]], np.object_)),
}


def test_the_linter_finds_nothing(make_case: Callable[[str], Any], tmp_path: Path) -> None:
    """Neither the file in a folder nor a single number nor a reshape is an error."""
    _, findings = lint(make_case(TAKEN).write(tmp_path / "models"))
    assert [(finding.rule.code, finding.sentence) for finding in findings] == []


def test_the_server_serves_it(make_case: Callable[[str], Any], shared: Any, request: pytest.FixtureRequest) -> None:
    """Each network gives back what it gets, `folder` with its weights added."""
    case = make_case(TAKEN)
    for name in case.models:
        request.addfinalizer(lambda folder=shared.models / name: shutil.rmtree(folder))
    request.addfinalizer(lambda: shared.unload(case.models))
    case.write(shared.models)
    for model, (given, expected) in SENT.items():
        assert shared.load(model) == ""
        answer = shared.infer(model, array=given).as_numpy("Y")
        assert (answer.shape, answer.tolist()) == (expected.shape, expected.tolist()), model


LIBRARY = """
-- library --
backend: "onnxruntime"
input { name: "X" data_type: TYPE_FP32 dims: [1, 2] }
output { name: "Y" data_type: TYPE_FP32 dims: [1, 2] }
model_operations { op_library_filename: "libmissing.so" }
-- library/1/model.onnx --
input X FP32 1 2
output Y FP32 1 2
"""


def test_the_server_refuses_a_missing_library_of_operators(
    make_case: Callable[[str], Any], shared: Any, request: pytest.FixtureRequest
) -> None:
    """Only the server can know: the linker looks for the library where Triton runs."""
    case = make_case(LIBRARY)
    request.addfinalizer(lambda: shutil.rmtree(shared.models / "library"))
    case.write(shared.models)
    assert "The op_library_filename 'libmissing.so' cannot be loaded" in shared.load("library")
