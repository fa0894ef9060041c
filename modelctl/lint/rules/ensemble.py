"""Rules about an ensemble: its form, and each of its steps. Rules about the tensors between steps are in `links`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelctl.lint.graph import STEP
from modelctl.lint.repository import Model
from modelctl.lint.rule import MEASURED, USER_GUIDE, Finding, Rule

ARCHITECTURE = f"{USER_GUIDE}/ensemble_models.md"

FORM = Rule(
    code="TG030",
    title="The ensemble is incomplete",
    severity="error",
    evidence="refuses",
    why='An ensemble has `platform: "ensemble"`, ensemble_scheduling and at least one step, and each step has an '
    "input_map and an output_map. Triton needs all of them.",
    fix="Write what is missing; an ensemble has no `backend`.",
    source=ARCHITECTURE,
)
FOREIGN = Rule(
    code="TG031",
    title="The ensemble has fields that ensembles may not have",
    severity="error",
    evidence="refuses",
    why="An ensemble runs nothing itself: batches, instances and warm-up belong to its steps.",
    fix="Move dynamic_batching, sequence_batching, instance_group and model_warmup to the steps.",
    source=ARCHITECTURE,
)
NO_STEP = Rule(
    code="TG032",
    title="A step is not in the repository",
    severity="error",
    evidence="refuses",
    why="Loading an ensemble loads its steps, and fails when one is missing.",
    fix="Add the model, or correct model_name.",
    source=ARCHITECTURE,
)
CIRCLE = Rule(
    code="TG033",
    title="The ensemble contains itself",
    severity="error",
    evidence="refuses",
    why="A step may be another ensemble, but that ensemble must not contain this one.",
    fix="Name another model in one of the steps.",
    source=MEASURED,
)
STEP_VERSION = Rule(
    code="TG034",
    title="A step's version does not exist",
    severity="error",
    evidence="refuses",
    why="Without model_version a step means version 0, not the latest one.",
    fix="Write `model_version: -1` for the latest version.",
    source=f"{ARCHITECTURE}; {MEASURED}",
)
BATCH = Rule(
    code="TG035",
    title="The ensemble takes larger batches than a step",
    severity="error",
    evidence="refuses",
    why="An ensemble never splits a batch, so each step must accept the whole batch. A variant "
    "(configs/tensorrt.pbtxt) counts too.",
    fix="Lower the ensemble's max_batch_size, or raise the step's.",
    source=ARCHITECTURE,
)
NO_TENSOR = Rule(
    code="TG036",
    title="A step has no such tensor",
    severity="error",
    evidence="refuses",
    why="The keys of input_map and output_map are tensors of the step, the values are the ensemble's.",
    fix="Correct the key, or swap key and value.",
    source=ARCHITECTURE,
)
UNMAPPED = Rule(
    code="TG037",
    title="A step's input is not mapped",
    severity="error",
    evidence="refuses",
    why="Every input of a step that is not optional needs a tensor.",
    fix="Add an input_map for it, or mark the input `optional: true` when the model runs without it.",
    source=ARCHITECTURE,
)
RULES = (FORM, FOREIGN, NO_STEP, CIRCLE, STEP_VERSION, BATCH, NO_TENSOR, UNMAPPED)


def check(model: Model) -> Iterator[Finding]:
    """Check one model, if it is an ensemble."""
    if model.message.platform != "ensemble" and not model.message.HasField("ensemble_scheduling"):
        return
    yield from _form(model)
    for index, step in enumerate(model.steps):
        yield from _step(model, step, f"{STEP}[{index}]")
    if _reaches(model, model.name, set()):
        yield model.finding(CIRCLE, f"'{model.name}' is a step of itself, directly or through its steps.", STEP)


def _form(model: Model) -> Iterator[Finding]:
    message = model.message
    if message.platform != "ensemble" or message.backend not in ("", "ensemble"):
        yield model.finding(FORM, "ensemble_scheduling needs the platform 'ensemble', and no backend.", "platform")
    elif not model.steps:
        yield model.finding(FORM, "There are no steps.", "ensemble_scheduling")
    for index, step in enumerate(model.steps):
        for name in (name for name in ("input_map", "output_map") if not getattr(step, name)):
            yield model.finding(FORM, f"The step '{step.model_name}' has no {name}.", f"{STEP}[{index}]")
    for name in ("instance_group", "model_warmup"):
        if getattr(message, name):
            yield model.finding(FOREIGN, f"An ensemble has no {name}.", name)


def _step(model: Model, step: Any, field: str) -> Iterator[Finding]:
    """Check one step by itself."""
    other = model.repository.models.get(step.model_name)
    if other is None and step.model_name in {path.name for path in model.repository.bare}:
        return  # its config is left to auto-complete
    if other is None:
        sentence = f"There is no model '{step.model_name}' in the repository."
        yield model.finding(NO_STEP, sentence, f"{field}.model_name")
        return
    if other.config.error:
        return
    if step.model_version != -1 and step.model_version not in other.versions:
        sentence = f"'{other.name}' has no version {step.model_version}."
        yield model.finding(STEP_VERSION, sentence, f"{field}.model_version")
    largest = model.message.max_batch_size
    if largest > other.message.max_batch_size > 0:  # a step without batches is accepted: see TG046
        where = f"{other.config.path.parent.name}/{other.config.path.name} of " if other.is_variant else ""
        sentence = f"max_batch_size is {largest} here and {other.message.max_batch_size} in {where}'{other.name}'."
        yield model.finding(BATCH, sentence, field)
    for kind in (kind for kind in ("input", "output") if not other.is_completed(kind)):
        name, entries = f"{kind}_map", getattr(other.message, kind)
        for key in sorted(set(getattr(step, name)) - {entry.name for entry in entries}):
            yield model.finding(NO_TENSOR, f"'{other.name}' has no {kind} '{key}'.", f'{field}.{name}["{key}"]')
    needed = {entry.name for entry in other.message.input if not entry.optional}
    for key in sorted(needed - set(step.input_map)) if step.input_map else ():
        yield model.finding(UNMAPPED, f"The input '{key}' of '{other.name}' gets no tensor.", f"{field}.input_map")


def _reaches(model: Model, name: str, seen: set[str]) -> bool:
    """Tell whether a model is among the steps of another, at any depth."""
    for step in (step.model_name for step in model.steps):
        if step == name:
            return True
        if step not in seen and step in model.repository.models:
            seen.add(step)
            if _reaches(model.repository.models[step], name, seen):
                return True
    return False
