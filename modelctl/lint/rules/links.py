"""Rules about the tensors that go from one step of an ensemble to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2

from modelctl.lint.graph import STEP, Graph, Use
from modelctl.lint.repository import Model
from modelctl.lint.rule import MEASURED, Finding, Rule
from modelctl.lint.rules.batching import policies
from modelctl.lint.rules.ensemble import ARCHITECTURE

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
RULES = (UNWRITTEN, UNREAD, TWO_WRITERS, DATA_TYPE, DIMS, WAITING, FAN_OUT, UNUSED, UNBATCHED, OVERWRITTEN)


def check(model: Model) -> Iterator[Finding]:
    """Check the outputs of one model as a step, and the tensors of its own steps."""
    yield from _unused(model)
    if model.steps:
        graph = Graph(model)
        yield from _flow(model, graph)
        yield from _links(model, graph)
        yield from _fan_out(model, graph)


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
