"""What an exporter has written into an ONNX file beside the graph: classes, task, how pictures are prepared."""

from __future__ import annotations

import ast
from typing import Any, NamedTuple

import onnx

from modelctl.errors import CommandError
from modelctl.graphs import networks

THRESHOLDS = {"score_threshold": 0.25, "iou_threshold": 0.7, "max_detections": 300}
"""The defaults of Ultralytics' own `predict`."""
LICENCE = "Exported by Ultralytics: its licence is AGPL-3.0 unless yours says otherwise."


class Range(NamedTuple):
    """How 8-bit values become a nominal range: (x * scale - mean), and the range in words."""

    scale: float
    mean: float
    words: str


ORDERS = {"Bgr8": "BGR", "Rgb8": "RGB", "Gray8": "GREY"}
RANGES = {
    "NominalRange_0_255": Range(1.0, 0.0, "0 to 255"),
    "Normalized_0_1": Range(1 / 255, 0.0, "0 to 1"),
    "Normalized_1_1": Range(1 / 127.5, 1.0, "-1 to 1"),
    "NominalRange_16_235": Range(219 / 255, -16.0, "16 to 235"),
}
"""Source of both: the image metadata of ONNX (docs/MetadataProps.md)."""


def facts(model: onnx.ModelProto) -> dict[str, Any]:
    """Return everything that a file's metadata says about it, with sentences for the user in `notes`.

    Raises:
        CommandError: as `ultralytics` and `pictures`.

    """
    shown, named = pictures(model), ultralytics(model)
    return {**shown, **named, "notes": [*shown.get("notes", []), *named.get("notes", [])]}


def pictures(model: onnx.ModelProto) -> dict[str, Any]:
    """Return the channel order and the range of values that ONNX's image metadata gives; empty without it.

    Raises:
        CommandError: when it asks for pixels that are not made here.

    """
    said = {entry.key: entry.value for entry in model.metadata_props}
    known: dict[str, Any] = {}
    words = []
    if layout := said.get("Image.BitmapPixelFormat"):
        if layout not in ORDERS:
            raise CommandError(
                f"The file's metadata asks for pixels as {layout}; served are {', '.join(ORDERS)}: "
                "export it for one of them."
            )
        known["channel_order"] = ORDERS[layout]
        words.append(f"channels in the order {ORDERS[layout]}")
    if nominal := said.get("Image.NominalPixelRange"):
        if nominal not in RANGES:
            raise CommandError(
                f"The file's metadata asks for values in {nominal}; served are {', '.join(RANGES)}: "
                "export it for one of them."
            )
        found = RANGES[nominal]
        known |= {"scale": found.scale, "mean": [found.mean] * 3, "std": [1.0] * 3}
        words.append(f"values from {found.words}")
    if said.get("Image.ColorSpaceGamma") == "Linear":
        words.append("linear light, while pictures are served as sRGB: check its answers")
    return {**known, "notes": [f"The file's metadata says: {', '.join(words)}."]} if words else {}


def ultralytics(model: onnx.ModelProto) -> dict[str, Any]:
    """Return the facts that Ultralytics' exporter wrote into a file; empty for files of other exporters.

    Raises:
        CommandError: when its task is not served here, or its metadata cannot be read.

    """
    said = {entry.key: entry.value for entry in model.metadata_props}
    if "names" not in said or "Ultralytics" not in said.get("author", ""):
        return {}
    if said.get("task") == "classify":
        return _classifier(said)
    if said.get("task") != "detect":
        raise CommandError(
            f"This is an Ultralytics network for '{said.get('task')}': only 'detect' and 'classify' can be served "
            "here; --task none serves its tensors."
        )
    _, outputs = networks.ports(model)
    has_nms = len(outputs) == 1 and len(outputs[0].shape) == 3 and outputs[0].shape[-1] == 6
    facts = _classes_and_size(said)
    # Of Ultralytics' detectors only RT-DETR writes a row for each query; older exports do not name their head.
    in_rows = len(outputs) == 1 and outputs[0].shape[-1:] == (4 + len(facts["labels"]),)
    unnamed = "head" not in said and said.get("end2end") != "True" and "'nms': True" not in said.get("args", "")
    # The description begins with the network's name, such as "Ultralytics YOLOv10n model trained on ...".
    unnamed = unnamed and not said.get("description", "").startswith("Ultralytics YOLO")
    in_rows = in_rows and outputs[0].shape[1] != outputs[0].shape[-1]
    # Rows of 6 may also be a box, a score and a class: the values tell.
    rtdetr = "RTDETR" in said.get("head", "") or (unnamed and in_rows and not has_nms)
    return {
        "task": "object-detection",
        **facts,
        "head": "RTDETRDecoder"
        if rtdetr
        else said.get("head") or ("Detect" if has_nms and not (unnamed and in_rows) else ""),
        "thresholds": {"max_detections": 300} if has_nms else THRESHOLDS,
        # RT-DETR's predictor stretches pictures.
        "resize": "stretch" if rtdetr else "letterbox_center",
        "resample": "opencv_linear",
        "alpha": "drop",
        **({"end2end": said["end2end"]} if "end2end" in said else {}),
        "scale": 1 / 255,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "notes": [LICENCE],
    }


def _classifier(said: dict[str, str]) -> dict[str, Any]:
    """Return the facts of a classifier: shorter side to the picture size, centre crop, probabilities.

    Source: `classify_transforms` of Ultralytics, torchvision's Resize, CenterCrop and ToTensor on Pillow's pictures.
    """
    facts = _classes_and_size(said)
    height, width = facts.get("size", (224, 224))
    square = {"resize": "shortest_edge_center_crop", "resize_to": width, "rounding": "torchvision"}
    return {
        "task": "image-classification",
        **facts,
        **(square if height == width else {"resize": "stretch"}),
        "alpha": "drop",
        "scale": 1 / 255,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "notes": [LICENCE],
    }


def _classes_and_size(said: dict[str, str]) -> dict[str, Any]:
    """Return the class names and, where the file names it, the picture size [height, width] of the training."""
    try:
        names, size = ast.literal_eval(said["names"]), ast.literal_eval(said.get("imgsz", "None"))
        labels = [str(names[index]) for index in range(len(names))]
    except (ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError) as error:
        raise CommandError(
            f"The metadata that Ultralytics wrote into the file cannot be read ({str(error)[:100]}): export it again."
        ) from error
    is_size = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    return {"labels": labels, **({"size": size} if is_size else {})}
