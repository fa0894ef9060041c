"""A network whose task is not recognised, given options of a task: what it looks like, and which task would take it."""

from __future__ import annotations

from collections.abc import Sequence

from modelctl.errors import CommandError
from modelctl.graphs.networks import Port
from modelctl.sources.draft import Order

READS = {
    "image-classification": "reads one output [batch, classes]",
    "object-detection": "reads one head [batch, boxes, values], or logits and boxes",
}
CHANNELS = (1, 3, None)


def refuse(order: Order, names: Sequence[str], inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    """Refuse options of tasks for a network that is served by its tensors because no task is recognised.

    Raises:
        CommandError: when one of the options `names` was given.

    """
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(order.options, name) is not None]
    if not given:
        return
    them = "it" if len(given) == 1 else "them"
    tasks = " or ".join(f"--task {task}, which {READS[task]}," for task in _possible(inputs, outputs))
    ways = f"give {tasks} or omit {them}" if tasks else f"omit {them}"
    raise CommandError(
        f"No task is recognised from the inputs {_said(inputs)} and the outputs {_said(outputs)}, so "
        f"{', '.join(given)} would do nothing: {ways} to serve the network by its tensors."
    )


def _said(ports: Sequence[Port]) -> str:
    return ", ".join(f"{port.name} [{', '.join(str(size or '?') for size in port.shape)}]" for port in ports)


def _possible(inputs: Sequence[Port], outputs: Sequence[Port]) -> list[str]:
    """Return the tasks whose readers take such a network."""
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or not {inputs[0].shape[1], inputs[0].shape[3]} & set(CHANNELS):
        return []
    ranks = [len(port.shape) for port in outputs]
    if ranks in ([0], [2]):
        return ["image-classification"]
    return ["object-detection"] if ranks in ([3], [3, 3]) else []
