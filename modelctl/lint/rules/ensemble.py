"""Rules about an ensemble: its form, its steps, and the tensors that go from one to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2

from modelctl.lint.graph import STEP, Graph, Use
from modelctl.lint.repository import Model
from modelctl.lint.rule import MEASURED, USER_GUIDE, Finding, Rule
from modelctl.lint.rules.batching import policies

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
UNWRITTEN = Rule(
    code="TG038",
    title="Nobody writes a tensor",
    severity="error",
    evidence="refuses",
    why="Every tensor that is read, and every output, comes from an input of the ensemble or from a step's output_map.",
    fix="Correct the name, or add the output_map.",
    source=ARCHITECTURE,
)
UNREAD = Rule(
    code="TG039",
    title="Nobody reads a tensor",
    severity="error",
    evidence="refuses",
    why="Triton requires that every input of an ensemble and every mapped output of a step is read.",
    fix="Remove the output_map or the input, or make the tensor an output of the ensemble.",
    source=MEASURED,
)
TWO_WRITERS = Rule(
    code="TG040",
    title="A tensor is written twice",
    severity="error",
    evidence="refuses",
    why="Triton cannot tell which of the two values to use, and refuses the ensemble.",
    fix="Give one of them another name.",
    source=MEASURED,
)
DATA_TYPE = Rule(
    code="TG041",
    title="The two ends of a tensor differ in data type",
    severity="error",
    evidence="refuses",
    why="Triton converts nothing between steps.",
    fix="Make data_type equal in both configs, and make the step really write that type.",
    source=ARCHITECTURE,
)
DIMS = Rule(
    code="TG042",
    title="The two ends of a tensor differ in dims",
    severity="error",
    evidence="refuses",
    why="Both ends need equally many sizes, each equal or -1 at one end; with max_batch_size 0 the batch is one of "
    "them.",
    fix="Make dims equal.",
    source=ARCHITECTURE,
)
WAITING = Rule(
    code="TG043",
    title="Steps wait for each other",
    severity="error",
    evidence="refuses",
    why="Each needs a tensor that only the other writes, so neither can start.",
    fix="Break the cycle.",
    source=MEASURED,
)
FAN_OUT = Rule(
    code="TG044",
    title="Steps run at once, and one has a bounded queue",
    severity="error",
    evidence="hangs",
    why="When the queue is full, requests are never answered, and other models may hang with them; if such "
    "steps read the ensemble's own inputs, the server crashes with a segmentation fault. Fixed in 26.02.",
    fix="Make the steps run one after the other, by letting one read a tensor of the other; or remove "
    "max_queue_size from steps that run at once. Always set a client deadline.",
    source=f"{MEASURED}; https://github.com/triton-inference-server/core/pull/470",
)
UNUSED = Rule(
    code="TG045",
    title="No ensemble uses an output of a step",
    severity="warning",
    evidence="wastes",
    why="The step computes and copies it for every request, and Triton drops it, unless the backend skips outputs "
    "that are not requested.",
    fix="Remove the output from the step's config, or map it.",
    source=MEASURED,
)
UNBATCHED = Rule(
    code="TG046",
    title="A step takes no batches",
    severity="error",
    evidence="serves wrongly",
    why="A step whose max_batch_size is 0 gets a batch as one tensor. Triton accepts the link when dims are equal "
    "without the batch, and then every batch of more than one item fails.",
    fix="Write max_batch_size into the step; or -1 as its first size, when it takes the batch as part of its dims.",
    source=MEASURED,
)
OVERWRITTEN = Rule(
    code="TG047",
    title="A step writes an input of the ensemble",
    severity="error",
    evidence="hangs",
    why="Triton loads the ensemble and never answers its requests; usually other models hang too, or Triton crashes.",
    fix="Rename the tensor that the step writes.",
    source=MEASURED,
)
RULES = (
    *(FORM, FOREIGN, NO_STEP, CIRCLE, STEP_VERSION, BATCH, NO_TENSOR, UNMAPPED, UNWRITTEN, UNREAD, TWO_WRITERS),
    *(DATA_TYPE, DIMS, WAITING, FAN_OUT, UNUSED, UNBATCHED, OVERWRITTEN),
)


def check(model: Model) -> Iterator[Finding]:
    """Check one model as an ensemble, and as a step."""
    yield from _unused(model)
    if model.message.platform != "ensemble" and not model.message.HasField("ensemble_scheduling"):
        return
    yield from _form(model)
    for index, step in enumerate(model.steps):
        yield from _step(model, step, f"{STEP}[{index}]")
    if _reaches(model, model.name, set()):
        yield model.finding(CIRCLE, f"'{model.name}' is a step of itself, directly or through its steps.", STEP)
    if model.steps:
        graph = Graph(model)
        yield from _flow(model, graph)
        yield from _links(model, graph)
        yield from _fan_out(model, graph)


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
    if largest > other.message.max_batch_size > 0:  # a step without batches is accepted: see `_links`
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


def _flow(model: Model, graph: Graph) -> Iterator[Finding]:
    """Check that every tensor is written once and read."""
    for name, uses in sorted(graph.tensors.items()):
        writers, readers = [use for use in uses if use.writes], [use for use in uses if not use.writes]
        if not writers:
            sentence = f"Nobody writes '{name}', which {readers[0].who} needs."
            yield model.finding(UNWRITTEN, sentence, readers[0].field)
        elif not readers:
            yield model.finding(UNREAD, f"Nobody reads '{name}', which {writers[0].who} writes.", writers[0].field)
        elif len(writers) > 1:
            sentence = f"Both {writers[0].who} and {writers[1].who} write '{name}'."
            rule = OVERWRITTEN if writers[0].step is None else TWO_WRITERS
            yield model.finding(rule, sentence, writers[1].field)
    if graph.waiting:
        names = " and ".join(sorted(f"'{model.steps[index].model_name}'" for index in graph.waiting))
        yield model.finding(WAITING, f"{names} can never start.", f"{STEP}[{min(graph.waiting)}]")


def _links(model: Model, graph: Graph) -> Iterator[Finding]:
    """Compare both ends of every tensor, as Triton does when it loads the ensemble."""
    for name, uses in sorted(graph.tensors.items()):
        known = sorted((use for use in uses if use.entry is not None), key=lambda use: not use.writes)
        for use in known[1:]:
            first = known[0]
            types = [_type(one.entry) for one in (first, use)]
            if types[0] != types[1]:
                sentence = f"'{name}' is {types[0]} from {first.who} and {types[1]} in {use.who}."
                yield model.finding(DATA_TYPE, sentence, use.field)
            bare, full = _fits(first, use)
            dims = " and ".join(f"{list(one.entry.dims)} in {one.who}" for one in (first, use))
            if not bare and not full:
                yield model.finding(DIMS, f"'{name}' is {dims}.", use.field)
            elif not full and model.message.max_batch_size > 1:
                yield model.finding(UNBATCHED, f"'{name}' is {dims}, and only one of them takes batches.", use.field)


def _type(entry: Any) -> str:
    return str(model_config_pb2.DataType.Name(entry.data_type))


def _fits(first: Use, second: Use) -> list[bool]:
    """Compare dims as Triton does, without the batch and with it: one match is enough for Triton.

    https://github.com/triton-inference-server/core/blob/main/src/ensemble_utils.cc, ValidateTensorConsistency
    """
    bare = [list(use.entry.dims) for use in (first, second)]
    full = [[-1, *dims] if use.batches else dims for use, dims in zip((first, second), bare, strict=True)]
    return [
        len(a) == len(b) and all(x == y or -1 in (x, y) for x, y in zip(a, b, strict=True)) for a, b in (bare, full)
    ]


def _fan_out(model: Model, graph: Graph) -> Iterator[Finding]:
    for left, right in graph.pairs_at_once():
        for index, other in ((left, right), (right, left)):
            step = model.repository.models.get(model.steps[index].model_name)
            if step is not None and any(policy.max_queue_size for policy in policies(step).values()):
                sentence = f"'{step.name}' with its bounded queue runs beside '{model.steps[other].model_name}'."
                yield model.finding(FAN_OUT, sentence, f"{STEP}[{index}]")


def _unused(model: Model) -> Iterator[Finding]:
    steps = [step for ensemble in model.ensembles() for step in ensemble.steps if step.model_name == model.name]
    mapped = {key for step in steps for key in step.output_map}
    for index, entry in enumerate(model.message.output):
        if mapped and entry.name not in mapped:
            yield model.finding(UNUSED, f"No ensemble reads the output '{entry.name}'.", f"output[{index}]")


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
