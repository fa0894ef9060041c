"""A network's config is read as NVIDIA's ONNX Runtime backend reads it, and refused where it refuses it."""

from __future__ import annotations

from typing import Any

import pytest

from stages.config import ConfigError
from stages.onnx_options import RuntimeOptions


def read(**parameters: str) -> RuntimeOptions:
    """Return the options of a config with these parameters."""
    return RuntimeOptions.of({"parameters": {name: {"string_value": text} for name, text in parameters.items()}})


def accelerated(kind: str, name: str) -> dict[str, Any]:
    """Return a config with one accelerator."""
    return {"optimization": {"execution_accelerators": {kind: [{"name": name}]}}}


@pytest.mark.parametrize("text", ["true", "True", "ON", "on", "1", "false", "FALSE", "off", "Off", "0"])
def test_every_spelling_of_a_switch_is_taken(text: str) -> None:
    """ParseBoolValue ignores case, and knows three spellings of each."""
    made = read(enable_mem_arena=text, enable_mem_pattern=text, share_session_between_instances=text)
    assert made.memory_arena is made.memory_pattern is (text.lower() in ("true", "on", "1"))


@pytest.mark.parametrize("text", ["yes", "", " true", "2"])
@pytest.mark.parametrize("name", ["enable_mem_arena", "enable_mem_pattern", "share_session_between_instances"])
def test_any_other_switch_is_refused(name: str, text: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^The parameter '{name}' must be true or false, on or off, 1 or 0, not '{text}'.$"
    ):
        read(**{name: text})


def test_numbers_are_read_as_by_stoi() -> None:
    """It reads the number at the start; a negative count is none."""
    made = read(intra_op_thread_count=" 3 threads", inter_op_thread_count="-1", execution_mode="01")
    assert (made.intra_op_threads, made.inter_op_threads, made.parallel) == (3, 0, True)
    assert RuntimeOptions.of({}) == RuntimeOptions()


@pytest.mark.parametrize("name", ["intra_op_thread_count", "inter_op_thread_count", "execution_mode"])
def test_a_word_is_no_number(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^The parameter '{name}' must be a whole number, not 'all'.$"):
        read(**{name: "all"})


@pytest.mark.parametrize("mode", ["2", "-1", "10"])
def test_an_execution_mode_is_0_or_1(mode: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^The parameter 'execution_mode' must be 0 \(sequential\) or 1 \(parallel\), not {mode}.$"
    ):
        read(execution_mode=mode)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("cpu_execution_accelerator", "openvino"),
        ("gpu_execution_accelerator", "tensorrt"),
        ("gpu_execution_accelerator", "cuda"),
    ],
)
def test_known_accelerators_are_taken(kind: str, name: str) -> None:
    """Those for a CPU are handed on."""
    assert RuntimeOptions.of(accelerated(kind, name)).accelerators == (("openvino",) if name == "openvino" else ())


@pytest.mark.parametrize(
    ("kind", "name", "known"),
    [
        ("cpu_execution_accelerator", "onednn", "openvino"),
        ("cpu_execution_accelerator", "OpenVINO", "openvino"),
        ("gpu_execution_accelerator", "openvino", "tensorrt, cuda"),
    ],
)
def test_unknown_accelerators_are_refused(kind: str, name: str, known: str) -> None:
    sentence = f"The {kind} '{name}' is unknown; ONNX Runtime's backend knows {known}."
    with pytest.raises(ConfigError, match=f"^{sentence}$"):
        RuntimeOptions.of(accelerated(kind, name))
