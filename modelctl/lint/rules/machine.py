"""Rules about this machine: hardware and software that the repository needs and the machine lacks."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from modelctl.lint.repository import Model
from modelctl.lint.rule import CONFIGURATION, MEASURED, Finding, Rule
from modelctl.plans import choice

KIND_GPU = 1

NO_GPU = Rule(
    code="TG100",
    title="A model needs a GPU, and this machine has none",
    severity="warning",
    evidence="refuses",
    why="With KIND_GPU, or with `gpus`, Triton refuses the model on a machine without a GPU.",
    fix="Write KIND_AUTO, which takes a GPU where there is one; or leave it, when another machine serves the "
    "repository.",
    source=f"{CONFIGURATION}#instance-groups; {MEASURED}",
)
OTHER_MACHINE = Rule(
    code="TG101",
    title="A plan was built for another machine",
    severity="warning",
    evidence="documented",
    why="A plan runs on the compute capability and the TensorRT version that it was built with.",
    fix="Build it again on this machine; `modelctl serve` falls back to ONNX until then.",
    source="https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/advanced.html#version-compatibility",
)
RULES = (NO_GPU, OTHER_MACHINE)

this_machine = lru_cache(choice.this_machine)


def check(model: Model) -> Iterator[Finding]:
    """Check one model against this machine. Variants are chosen by machine, so they may ask for a GPU."""
    groups = () if model.is_variant else model.message.instance_group
    for index, group in enumerate(groups):
        wants = "KIND_GPU" if group.kind == KIND_GPU else f"gpus {list(group.gpus)}"
        if (group.kind == KIND_GPU or (group.kind == 0 and group.gpus)) and not this_machine().compute_capability:
            sentence = f"It asks for {wants}, and nvidia-smi finds no GPU on {platform.node()}."
            yield model.finding(NO_GPU, sentence, f"instance_group[{index}]")
    if model.backend == "tensorrt":
        for version in model.versions:
            yield from _plan(model, model.folder / str(version) / "model.plan.json")


def _plan(model: Model, path: Path) -> Iterator[Finding]:
    try:
        built = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    machine = this_machine()
    for name in ("compute_capability", "tensorrt_version"):
        here = getattr(machine, name)
        if isinstance(built, dict) and here and built.get(name) != here:
            sentence = f"It was built for {name.replace('_', ' ')} {built.get(name)}, {platform.node()} has {here}."
            yield Finding(OTHER_MACHINE, model.name, path, "", None, sentence)
