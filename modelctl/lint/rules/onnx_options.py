"""Rules about options of NVIDIA's ONNX Runtime backend, and about inputs that it does not take."""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelctl.lint.repository import Model
from modelctl.lint.rule import MEASURED, Finding, Rule

BACKEND = "https://github.com/triton-inference-server/onnxruntime_backend/blob/main/src/onnxruntime.cc"
BOOLEANS = ("true", "on", "1", "false", "off", "0")
NUMBER = re.compile(r"\s*[+-]?\d")
ACCELERATORS = {
    "cpu_execution_accelerator": ("openvino",),
    "gpu_execution_accelerator": ("tensorrt", "cuda"),
}

OPTION = Rule(
    code="TG078",
    title="ONNX Runtime's backend has no such option",
    severity="error",
    evidence="refuses",
    why="It reads thread counts as whole numbers, execution_mode as 0 or 1, and switches as true, on, 1, false, off or "
    "0; it knows the accelerators openvino for the CPU, tensorrt and cuda for GPUs.",
    fix="Correct the value, or remove it.",
    source=f"{BACKEND}; {MEASURED} with backends/onnxruntime",
)
INPUT = Rule(
    code="TG079",
    title="ONNX Runtime's backend does not take such an input",
    severity="error",
    evidence="refuses",
    why="A model with batches has no optional inputs; without batches only a weight that the network lists as an input "
    "may be optional. A ragged input has the shape [-1] in the network; the embedded server joins none.",
    fix="Remove `optional` or `allow_ragged_batch`.",
    source=f"{BACKEND}, ValidateInputs; {MEASURED} with backends/onnxruntime",
)
RULES = (OPTION, INPUT)


def check(model: Model) -> Iterator[Finding]:
    """Check the options and the inputs of a model that ONNX Runtime runs."""
    if model.backend != "onnxruntime":
        return
    yield from _parameters(model)
    accelerators = model.message.optimization.execution_accelerators
    for kind, known in ACCELERATORS.items():
        for index, entry in enumerate(getattr(accelerators, kind)):
            if entry.name not in known:
                sentence = f"The {kind} '{entry.name}' is none of {', '.join(known)}."
                field = f"optimization.execution_accelerators.{kind}[{index}]"
                yield model.finding(OPTION, sentence, field)
    for index, entry in enumerate(model.message.input):
        if entry.optional and model.message.max_batch_size > 0:
            yield model.finding(INPUT, f"The input '{entry.name}' is optional.", f"input[{index}]")


def _parameters(model: Model) -> Iterator[Finding]:
    def wrong(name: str, wanted: str) -> Finding:
        sentence = f"'{name}' is '{model.parameter(name)}' and must be {wanted}."
        return model.finding(OPTION, sentence, f'parameters["{name}"]')

    given = model.message.parameters
    for name in ("intra_op_thread_count", "inter_op_thread_count"):
        if name in given and not NUMBER.match(model.parameter(name)):
            yield wrong(name, "a whole number")
    if "execution_mode" in given and not re.match(r"\s*\+?0*[01](?!\d)", model.parameter("execution_mode")):
        yield wrong("execution_mode", "0 or 1")
    for name in ("enable_mem_arena", "enable_mem_pattern", "share_session_between_instances"):
        if name in given and model.parameter(name).lower() not in BOOLEANS:
            yield wrong(name, "true, on, 1, false, off or 0")
