"""Rules about batches and queues: sizes, delays, bounds, timeouts and priorities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelctl.lint.repository import Model
from modelctl.lint.rule import MEASURED, USER_GUIDE, Finding, Rule

BATCHER = f"{USER_GUIDE}/batcher.md"
REJECT = 0

PREFERRED = Rule(
    code="TG050",
    title="A preferred batch size cannot occur",
    severity="error",
    evidence="refuses",
    why="A preferred_batch_size lies between 1 and max_batch_size.",
    fix="Remove it (most models need none), or raise max_batch_size.",
    source=f"{BATCHER}#preferred-batch-sizes",
)
NOTHING_TO_BATCH = Rule(
    code="TG051",
    title="dynamic_batching has no batches",
    severity="warning",
    evidence="wastes",
    why="Without max_batch_size the model takes no batches, and dynamic_batching without a queue policy does nothing.",
    fix="Write max_batch_size (and take the batch out of the dims), or remove dynamic_batching.",
    source=MEASURED,
)
NOT_BATCHED = Rule(
    code="TG052",
    title="Requests are never batched",
    severity="warning",
    evidence="wastes",
    why="Without dynamic_batching each request runs alone, although max_batch_size allows more.",
    fix="Write `dynamic_batching { }`, or max_batch_size 1 when callers send no batches either.",
    source=f"{BATCHER}#dynamic-batcher",
)
UNBOUNDED = Rule(
    code="TG053",
    title="A queue policy has no bound",
    severity="warning",
    evidence="wastes",
    why="The queue has timeouts or priorities, with the cost that TG054 names, but no limit: under overload memory "
    "grows, and callers get answers too late. A queue without a policy has no limit either but is not reported, "
    "because a limit in Triton would stall it. Limit concurrency in front of Triton instead, as the gateway does for "
    "models that have a `task`.",
    fix="Remove the policy and limit concurrency in front of Triton, or set max_queue_size.",
    source=f"{BATCHER}#queue-policy; {MEASURED}",
)
STALLS = Rule(
    code="TG054",
    title="A queue policy stalls the batcher",
    severity="warning",
    evidence="wastes",
    why="With a bound, a timeout or priorities Triton 24.10 sometimes fails to wake its batcher: requests wait "
    "half a second although an instance is idle.",
    fix="Remove the policy and limit concurrency in front of Triton; or, if measurements show that your release "
    "does not stall, say so in lint_ignore.",
    source=f"docs/decisions/0005-queues.md; {MEASURED}",
)
EXPIRES = Rule(
    code="TG055",
    title="Requests expire before their batch is made",
    severity="error",
    evidence="serves wrongly",
    why="A request waits up to max_queue_delay_microseconds to be batched; with a shorter "
    "default_timeout_microseconds every request that stays alone is rejected.",
    fix="Make the timeout many times the delay.",
    source=MEASURED,
)
NO_OVERRIDE = Rule(
    code="TG056",
    title="A request's timeout is ignored",
    severity="warning",
    evidence="serves wrongly",
    why="allow_timeout_override lets a request shorten default_timeout_microseconds, and without one there is "
    "nothing to shorten.",
    fix="Set default_timeout_microseconds to the longest wait, or remove allow_timeout_override.",
    source=MEASURED,
)
LATE = Rule(
    code="TG057",
    title="Timeouts are noticed late",
    severity="warning",
    evidence="serves wrongly",
    why="Triton checks timeouts only when an instance is free: behind a run of one second, a request with a timeout "
    "of 100 ms is rejected after that second.",
    fix="Give callers a deadline of their own (client_timeout, grpc-timeout), and do not rely on the queue's.",
    source=MEASURED,
)
PRIORITY = Rule(
    code="TG058",
    title="A priority is out of range",
    severity="error",
    evidence="refuses",
    why="Levels go from 1 to priority_levels, and default_priority_level must be one of them.",
    fix="Write default_priority_level, from 1 to priority_levels, and policies only for those levels.",
    source=f"{BATCHER}#priority-levels",
)
NO_PRIORITY = Rule(
    code="TG059",
    title="Priorities have no effect",
    severity="warning",
    evidence="serves wrongly",
    why="Without priority_levels there is one level; Triton ignores policies for other levels, with their bounds.",
    fix="Write priority_levels, or remove default_priority_level and priority_queue_policy.",
    source=MEASURED,
)
RULES = (
    *(PREFERRED, NOTHING_TO_BATCH, NOT_BATCHED, UNBOUNDED, STALLS, EXPIRES, NO_OVERRIDE, LATE, PRIORITY),
    NO_PRIORITY,
)


def check(model: Model) -> Iterator[Finding]:
    """Check how one model batches and queues. Ensembles have no queue, and sequences have rules of their own."""
    message = model.message
    if model.backend == "ensemble" or message.HasField("sequence_batching"):
        return
    if message.HasField("dynamic_batching"):
        yield from _batching(model, message.dynamic_batching)
    elif message.max_batch_size > 1:
        yield model.finding(NOT_BATCHED, "There is no dynamic_batching.", "max_batch_size")
    is_bounded = any(policy.max_queue_size for policy in policies(model).values())
    if _has_policy(message.dynamic_batching) and not is_bounded and not _is_bounded_outside(model):
        yield model.finding(UNBOUNDED, "The queue has no limit.", "dynamic_batching")


def policies(model: Model) -> dict[str, Any]:
    """Return the queue policies that have an effect, by their field."""
    batching = model.message.dynamic_batching
    found = {"dynamic_batching.default_queue_policy": batching.default_queue_policy}
    for level in sorted(batching.priority_queue_policy) if batching.priority_levels else ():
        found["dynamic_batching.priority_queue_policy"] = batching.priority_queue_policy[level]
    return found


def _is_bounded_outside(model: Model, inner: frozenset[str] = frozenset()) -> bool:
    """Tell whether the gateway limits the model's concurrency: it does for models with a task, and for their steps."""
    if model.parameter("task"):
        return True
    inner |= {model.name}  # a broken ensemble may be a step of itself
    outer = [ensemble for ensemble in model.ensembles() if ensemble.name not in inner]
    return bool(outer) and all(_is_bounded_outside(ensemble, inner) for ensemble in outer)


def _batching(model: Model, batching: Any) -> Iterator[Finding]:
    largest, plain = model.message.max_batch_size, not _has_policy(batching)
    bad = [size for size in batching.preferred_batch_size if not 1 <= size <= largest]
    if bad:
        sentence = f"preferred_batch_size {bad[0]} is not from 1 to max_batch_size, which is {largest}."
        yield model.finding(PREFERRED, sentence, "dynamic_batching.preferred_batch_size")
    elif not largest and plain and not model.is_completed("input"):  # which completes max_batch_size too
        yield model.finding(NOTHING_TO_BATCH, "max_batch_size is 0 or absent.", "dynamic_batching")
    if not plain:
        yield model.finding(STALLS, "Requests may wait half a second although an instance is idle.", "dynamic_batching")
    yield from _priorities(model, batching)
    for field, policy in policies(model).items():
        yield from _timeouts(model, policy, field)


def _has_policy(batching: Any) -> bool:
    return bool(batching.HasField("default_queue_policy") or batching.priority_levels)


def _priorities(model: Model, batching: Any) -> Iterator[Finding]:
    levels, default = batching.priority_levels, batching.default_priority_level
    given = sorted(batching.priority_queue_policy)
    if not levels and (default or given):
        yield model.finding(NO_PRIORITY, "priority_levels is absent.", "dynamic_batching")
    if levels and not 1 <= default <= levels:
        sentence = f"default_priority_level is {default}, of {levels} levels."
        yield model.finding(PRIORITY, sentence, "dynamic_batching.priority_levels")
    if levels and any(not 1 <= level <= levels for level in given):
        sentence = f"There are policies for the levels {given}, of {levels}."
        yield model.finding(PRIORITY, sentence, "dynamic_batching.priority_queue_policy")


def _timeouts(model: Model, policy: Any, field: str) -> Iterator[Finding]:
    timeout, delay = policy.default_timeout_microseconds, model.message.dynamic_batching.max_queue_delay_microseconds
    if policy.allow_timeout_override and not timeout:
        yield model.finding(NO_OVERRIDE, "There is no default_timeout_microseconds to override.", field)
    if not timeout or policy.timeout_action != REJECT:
        return
    yield model.finding(LATE, f"The timeout of {timeout} us counts when an instance is free.", field)
    if timeout < delay and model.message.max_batch_size > 1:
        sentence = f"The timeout of {timeout} us is shorter than the delay of {delay} us."
        yield model.finding(EXPIRES, sentence, f"{field}.default_timeout_microseconds")
