"""Tries the families of heads on the outputs for sample pictures; the one that fits is the `Fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from modelctl.errors import CommandError
from modelctl.sources.heads import arrangement, dense, queries, suppressed, unread
from modelctl.sources.heads.seen import EmptyError, Fit, MisfitError, Seen, shapes

READERS: Mapping[str, Callable[[Seen], Fit]] = {
    "nanodet_plus": dense.nanodet_plus,
    "nanodet": dense.nanodet,
    "yolofastestv2": dense.yolofastestv2,
    "fastestdet": dense.fastestdet,
    "end_to_end": suppressed.end_to_end,
    "rtdetr": queries.rtdetr,
    "yolov8": dense.yolov8,
    "yolov5": dense.yolov5,
    "yolox": dense.yolox,
    "detr": queries.detr,
    "scored_boxes": dense.scored_boxes,
    "detections": suppressed.detections,
}
"""By decoder, the strictest first: a head that two could read is the first one's."""
WAY_OUT = (
    "Name the family by --decoder, export the network with decoded boxes, serve its tensors as they are by "
    "--task none, or open an issue with this sentence."
)


def recognise(seen: Seen) -> Fit:
    """Return how a head is read: as the user says by `--decoder`, else as its outputs say.

    Raises:
        CommandError: when no family fits; it lists the outputs, and why each family does not fit.

    """
    seen = _without_extras(seen)
    asked = seen.option("decoder")
    if asked:
        try:
            return READERS[asked](replace(seen, forced=True))
        except MisfitError as misfit:
            raise CommandError(
                f"The outputs are no head of the decoder {asked}, because {misfit}; they are {shapes(seen.outputs)}."
            ) from misfit
    reasons: dict[str, str] = {}
    for decoder, read in READERS.items():
        try:
            return read(seen)
        except EmptyError as empty:
            what = f"The network's outputs {shapes(seen.outputs)} are those of the decoder {decoder}"
            raise CommandError(f"{what}, but {empty}.") from empty
        except MisfitError as misfit:
            reasons[decoder] = str(misfit)
    raise CommandError(_refusal(seen, reasons))


def _without_extras(seen: Seen) -> Seen:
    """Leave out outputs that are known not to belong to the head: masks, points, the levels before decoding."""
    for pair in arrangement.PAIRS:
        if set(pair) < set(seen.outputs):
            return replace(seen, outputs={name: seen.outputs[name] for name in pair})
    rows = [name for name in seen.outputs if len(seen.shape(name)) == 2]
    counts = [name for name in seen.outputs if seen.shape(name) in ((), (1,))]
    if len(seen.outputs) == 2 and len(rows) == len(counts) == 1 and seen.shape(rows[0])[-1] in (6, 7):
        return replace(seen, outputs={rows[0]: seen.outputs[rows[0]]})  # PaddleDetection's bbox_num
    if len(rows) == 1 and len(seen.outputs) > 1 and all(len(seen.shape(name)) in (2, 4) for name in seen.outputs):
        return replace(seen, outputs={rows[0]: seen.outputs[rows[0]]})
    return seen


def _refusal(seen: Seen, reasons: Mapping[str, str]) -> str:
    known = unread.name_of({name: seen.shape(name) for name in seen.outputs})
    what = f"The network's outputs are {shapes(seen.outputs)}"
    if known:
        return f"{what}: this looks like {known}, which is not read here. {WAY_OUT}"
    # Of families with another number of outputs there is nothing to say.
    near = {decoder: reason for decoder, reason in reasons.items() if "outputs, not" not in reason}
    near = {decoder: reason for decoder, reason in near.items() if "one output, not" not in reason} or near
    said = "; ".join(f"{decoder}: {reason}" for decoder, reason in near.items())
    return f"{what}, which fit no family of detectors ({said}). {WAY_OUT}"
