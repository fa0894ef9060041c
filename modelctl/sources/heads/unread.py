"""Families of heads that are known and not read as they are: what they are called, and what to do instead.

Some are read by `levels` where their levels and priors are their source's.
"""

from __future__ import annotations

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]
"""An output's shape by its name, without the batch."""

FACES = {1, 2, 4, 10, 14}
"""Last axes of face detectors: an overlap, two classes, four sides, five points, or sides and points together."""


def name_of(shapes: Shapes) -> str | None:
    """Return the family and the way out, in words; None when the outputs are of no such family."""
    names = {name.lower() for name in shapes}
    lasts = {shape[-1] for shape in shapes.values() if shape}
    ranks = {len(shape) for shape in shapes.values()}
    if any(name.startswith("kps_") for name in names) or {"loc", "conf", "iou"} <= names or 14 in lasts <= FACES:
        return "YuNet, with other levels or priors than its source's"
    if {4, 2, 10} == lasts:
        return "RetinaFace, with other priors than its source's"
    if len(shapes) in (6, 9) and {1, 4} <= lasts <= {1, 4, 10}:
        return "SCRFD, with other levels than its source's"
    if any("cls_pred" in name or "dis_pred" in name for name in names):
        return "NanoDet with an output for each level, of other strides or bins than its source's"
    if len(shapes) > 1 and ranks == {3} and _are_maps(shapes):
        return "CenterNet, or CenterFace with other maps than its source's"
    if 4 in ranks and len(shapes) <= len([shape for shape in shapes.values() if len(shape) in (2, 4)]):
        return "YOLO with undecoded levels (YOLOv5, v7: export with the Detect layer's decoding, `--grid`)"
    if len(shapes) > 1 and ranks == {3} and all(shape[0] % 3 == 0 or shape[-1] % 3 == 0 for shape in shapes.values()):
        return "YOLO with undecoded levels (export it with decoded boxes)"
    if (
        len(shapes) == 2
        and len({*shapes.values()}) == 1
        and ranks == {2}
        and all(5 <= a < b for a, b in shapes.values())
    ):
        return (
            "YOLOv9 before its conversion, with an auxiliary head (convert the checkpoint by its repository's "
            "tools/reparameterization.ipynb, then export it)"
        )
    if len(shapes) == 2 and sorted(map(len, shapes.values())) == [2, 3]:
        return "YOLO with masks (export the detector)"
    return None


def _are_maps(shapes: Shapes) -> bool:
    """Tell whether the outputs are maps of one size with few channels, such as a heatmap and two sides."""
    sizes = {shape[1:] for shape in shapes.values()}
    return len(sizes) == 1 and any(shape[0] == 2 for shape in shapes.values())
