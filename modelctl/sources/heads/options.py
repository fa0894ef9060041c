"""The options of `modelctl add` for detectors."""

from __future__ import annotations

import argparse

from modelctl.models.heads import DECODERS
from modelctl.sources.pictures import side

NAMES = (
    *("decoder", "encoded", "strides", "box_unit", "box_format", "columns", "first_class", "bins", "anchors"),
    *("score_threshold", "iou_threshold", "max_detections", "agnostic_nms"),
)
TAKEN: dict[str, tuple[str, ...]] = {
    "yolox": ("encoded", "strides", "iou_threshold", "agnostic_nms"),
    "detr": (),
    "rtdetr": ("iou_threshold", "agnostic_nms"),
    "end_to_end": ("box_format", "columns", "first_class"),
    "detections": ("box_format", "first_class", "iou_threshold", "agnostic_nms"),
    "scored_boxes": ("box_format", "iou_threshold", "agnostic_nms"),
    "nanodet": ("strides", "bins", "iou_threshold", "agnostic_nms"),
    "nanodet_plus": ("strides", "bins", "iou_threshold", "agnostic_nms"),
    "fastestdet": ("iou_threshold", "agnostic_nms"),
    "yolofastestv2": ("strides", "anchors", "iou_threshold", "agnostic_nms"),
}
"""Options that have an effect, of those that only some decoders take."""
SOME = sorted({name for names in TAKEN.values() for name in names})
NO_ACTIVATION = ("end_to_end", "detections", "fastestdet", "yolofastestv2")


def idle(decoder: str) -> list[str]:
    """Return the options that have no effect with a decoder."""
    taken = TAKEN.get(decoder, ("iou_threshold", "agnostic_nms"))
    return [*(name for name in SOME if name not in taken), *(["activation"] if decoder in NO_ACTIVATION else [])]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("detectors (for files that do not describe them)")
    group.add_argument(
        "--decoder", choices=DECODERS, help="family of the network's outputs (default: recognised from their values)"
    )
    group.add_argument(
        "--encoded",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="for yolox: whether boxes are relative to grid cells",
    )
    group.add_argument("--strides", type=sizes, metavar="8,16,32", help="cell sizes in pixels of encoded boxes")
    group.add_argument("--box-unit", choices=("pixels", "normalized"), help="unit of the network's boxes")
    group.add_argument(
        "--box-format",
        choices=("corners", "centre", "yxyx"),
        help="xmin, ymin, xmax, ymax; or cx, cy, w, h; or ymin, xmin, ymax, xmax",
    )
    group.add_argument(
        "--columns", type=_columns, metavar="batch,class,score,box", help="for end_to_end: what a row holds, in order"
    )
    group.add_argument(
        "--first-class",
        type=int,
        metavar="ID",
        help="class id of the first label (default: 0, or 1 by the outputs' names)",
    )
    group.add_argument("--bins", type=side, help="for nanodet: bins of each side (default: 8)")
    group.add_argument(
        "--anchors", type=_floats, metavar="W,H,...", help="for yolofastestv2: width and height of each anchor"
    )
    group.add_argument("--score-threshold", type=float, help="lowest score of a reported box")
    group.add_argument("--iou-threshold", type=float, help="overlap above which the lower-scored box is dropped")
    group.add_argument("--max-detections", type=int, help="maximum number of boxes per picture")
    group.add_argument(
        "--agnostic-nms", action="store_true", default=None, help="suppress overlapping boxes of different classes too"
    )


def sizes(text: str) -> list[int]:
    """Return the whole numbers in an option's text."""
    return [side(part) for part in text.split(",")]


def _columns(text: str) -> list[str]:
    parts = text.split(",")
    if sorted({"batch", *parts}) != ["batch", "box", "class", "score"] or len(set(parts)) != len(parts):
        raise argparse.ArgumentTypeError("name box, class, score and perhaps batch, in the order of the columns")
    return parts


def _floats(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' are not numbers such as 12.6,19.4") from error
