"""Rules about TensorRT plans and the variants that run them. The embedded server has no TensorRT: most are documented.

`<version>/model.plan.json`, which `modelctl plan` writes, says what a plan was built for (`modelctl.plans.cache`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from modelctl.lint.repository import Model
from modelctl.lint.rule import CONFIGURATION, LAYOUT, MEASURED, PROTO, Finding, Rule
from modelctl.lint.rules.text import max_length, networks

INSTANCE = "https://github.com/triton-inference-server/tensorrt_backend/blob/main/src/instance_state.cc"
UTILS = "https://github.com/triton-inference-server/tensorrt_backend/blob/main/src/tensorrt_utils.h"
KIND_AUTO, KIND_GPU = 0, 1

ACCELERATOR = Rule(
    code="TG090",
    title="A plan has execution_accelerators",
    severity="warning",
    evidence="documented",
    why="They are instructions for ONNX Runtime and TensorFlow; TensorRT's own backend ignores them, and the plan "
    "stays as it was built.",
    fix="Remove execution_accelerators; choose the precision when the plan is built.",
    source=f"{PROTO}, ExecutionAccelerators",
)
KIND = Rule(
    code="TG091",
    title="A plan is configured for a CPU",
    severity="error",
    evidence="documented",
    why="A plan is code for a GPU, and its backend needs KIND_GPU, or KIND_AUTO on a machine with a GPU.",
    fix="Write `kind: KIND_GPU`; on a CPU, serve the ONNX file.",
    source=f"{CONFIGURATION}#instance-groups; {INSTANCE}",
)
NO_PLAN = Rule(
    code="TG092",
    title="There is no plan, and nothing else to serve",
    severity="error",
    evidence="documented",
    why="The config names a plan that does not exist. As a variant (configs/tensorrt.pbtxt, beside a config.pbtxt for "
    "the ONNX) it would be used only where the plan exists.",
    fix="Build the plan on the machine that serves it; or let config.pbtxt serve the ONNX and move this to a variant.",
    source=f"{LAYOUT}#tensorrt-models",
)
VARIANT = Rule(
    code="TG093",
    title="A variant has other tensors than config.pbtxt",
    severity="error",
    evidence="serves wrongly",
    why="With --model-config-name the same model name has other inputs or outputs: callers fail, and an "
    "ensemble does not load.",
    fix="Make inputs and outputs equal; TensorRT's own types (INT32 for INT64) are cast when the plan is built.",
    source=f"{CONFIGURATION}#custom-model-configuration; {MEASURED}",
)
PLAN_BATCH = Rule(
    code="TG094",
    title="The plan takes smaller batches than the config",
    severity="error",
    evidence="documented",
    why="A plan runs only within its profile: larger batches fail.",
    fix="Build with --maxShapes of at least max_batch_size, or lower max_batch_size here and in the ensemble.",
    source=f"{INSTANCE}; {UTILS}, ValidateDimension",
)
PLAN_SHAPE = Rule(
    code="TG095",
    title="A size lies outside the plan's profile",
    severity="error",
    evidence="documented",
    why="A plan runs only within its profile. Fixed dims outside it keep the model from loading; texts as long as "
    "the tokenizer allows fail.",
    fix="Build with --minShapes and --maxShapes around the dims and the tokenizer's max_length.",
    source=f"{UTILS}, ValidateDimension",
)
COPIES = Rule(
    code="TG096",
    title="Each instance of a plan holds its own weights",
    severity="warning",
    evidence="documented",
    why="Plans with dynamic shapes are not shared between instances: n instances take n times the GPU memory.",
    fix="Use one instance and larger batches, unless measurements show a gain from more.",
    source=f"{INSTANCE}",
)
RULES = (ACCELERATOR, KIND, NO_PLAN, VARIANT, PLAN_BATCH, PLAN_SHAPE, COPIES)


def check(model: Model) -> Iterator[Finding]:
    """Check a variant against its config.pbtxt, and a plan."""
    if model.is_variant:
        yield from _variant(model)
    if model.backend == "tensorrt":
        yield from _config(model)
        for version in model.versions:
            yield from _plan(model, version)


def _variant(model: Model) -> Iterator[Finding]:
    for kind in ("input", "output"):
        if model.is_completed(kind) or not getattr(model.base.message, kind):
            continue  # Triton completes one of the two
        own, base = (_tensors(message, kind) for message in (model.message, model.base.message))
        for name in sorted(own.keys() ^ base.keys()):
            where = model.config.path.name if name in own else "config.pbtxt"
            yield model.finding(VARIANT, f"Only {where} has the {kind} '{name}'.", kind)
        for name in sorted(name for name in own.keys() & base.keys() if own[name] != base[name]):
            yield model.finding(VARIANT, f"The {kind} '{name}' has another data type or other dims.", kind)


def _tensors(message: Any, kind: str) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {entry.name: (entry.data_type, tuple(entry.dims)) for entry in getattr(message, kind)}


def _config(model: Model) -> Iterator[Finding]:
    accelerators = model.message.optimization.execution_accelerators
    if accelerators.gpu_execution_accelerator or accelerators.cpu_execution_accelerator:
        field = "optimization.execution_accelerators"
        yield model.finding(ACCELERATOR, "A plan is not accelerated a second time.", field)
    for index, group in enumerate(model.message.instance_group):
        field = f"instance_group[{index}]"
        if group.kind not in (KIND_AUTO, KIND_GPU):
            yield model.finding(KIND, "A plan needs KIND_GPU.", f"{field}.kind")
        if group.count > 1:
            yield model.finding(COPIES, f"{group.count} instances load {group.count} plans.", f"{field}.count")


def _plan(model: Model, version: int) -> Iterator[Finding]:
    folder = model.folder / str(version)
    name = model.message.default_model_filename or "model.plan"
    if not model.has_file(version, name) and not model.is_variant:
        yield model.finding(NO_PLAN, f"There is no file {version}/{name}.", "default_model_filename")
    for tensor, (low, high) in sorted(_profile(folder / f"{name}.json").items()):
        entry = next((entry for entry in model.message.input if entry.name == tensor), None)
        if entry is not None:
            yield from _shape(model, entry, low, high)


def _profile(path: Any) -> dict[str, tuple[list[int], list[int]]]:
    """Return the smallest and largest shape of each input that a plan was built for; empty when no file says so."""
    try:
        profile = json.loads(path.read_text())["profile"]
        return {name: (list(shapes["min"]), list(shapes["max"])) for name, shapes in profile.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _shape(model: Model, entry: Any, low: list[int], high: list[int]) -> Iterator[Finding]:
    batch = model.message.max_batch_size
    dims, field = list(entry.dims), f"input[{list(model.message.input).index(entry)}].dims"
    if batch > 0 and high and high[0] < batch:
        sentence = f"The plan takes {high[0]} items of '{entry.name}', max_batch_size is {batch}."
        yield model.finding(PLAN_BATCH, sentence, "max_batch_size")
    shape = [-1, *dims] if batch > 0 else dims
    if len(shape) != len(high) or any(a != -1 and not x <= a <= y for a, x, y in zip(shape, low, high, strict=False)):
        sentence = f"'{entry.name}' is {shape}, the plan takes {low} to {high}."
        yield model.finding(PLAN_SHAPE, sentence, field)
    for tokenizer in (one for one in model.repository.models.values() if max_length(one)):
        for network, name in networks(tokenizer):
            if network is model and name == entry.name and high and max_length(tokenizer) > high[-1]:
                sentence = f"'{tokenizer.name}' gives {max_length(tokenizer)} tokens, the plan takes {high[-1]}."
                yield model.finding(PLAN_SHAPE, sentence, field)
