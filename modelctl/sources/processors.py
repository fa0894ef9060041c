"""How a checkpoint prepares pictures and texts -> the same preparation by our steps.

Sizes and resize rules are read from `preprocessor_config.json`. Scale, mean, std and channel order are measured on
plain pictures instead, because processor classes interpret the same keys differently. At the end the processor and our
reference prepare the same photographs, and the results must be equal.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ValidationError

from modelctl.errors import CommandError
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.pictures import prepare, upright
from modelctl.reference.samples import SAMPLES
from modelctl.sources import pictures

LARGEST_LIMIT = 100_000  # a tokenizer without a limit states 10^30
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def tokenizer(place: str, work: Path) -> tuple[Path, int, str]:
    """Write the checkpoint's tokenizer as `tokenizer.json`.

    Returns:
        the file, its maximum length in tokens (0: none), and the end at which it cuts longer texts.

    Raises:
        CommandError: when the checkpoint has no tokenizer that the `tokenizers` library can run.

    """
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        if len(found) <= len(found.all_special_ids):  # transformers makes up one where the files are missing
            raise ValueError("its vocabulary is missing.")
        found.backend_tokenizer.save(str(work / "tokenizer.json"))
    except Exception as error:
        refuse_code("The checkpoint's tokenizer", error)
        text = " ".join(str(error).split())[:200]
        raise CommandError(f"The checkpoint has no tokenizer that can be served (tokenizer.json): {text}") from error
    length = found.model_max_length if found.model_max_length < LARGEST_LIMIT else 0
    return work / "tokenizer.json", length, str(found.truncation_side)


def preprocess(place: str, options: argparse.Namespace) -> ImagePreprocess:
    """Return the preparation of a checkpoint's pictures, overruled by the user's options.

    Raises:
        CommandError: when our step cannot prepare pictures that way.

    """
    processor = _processor(place)
    config = _attributes(processor) if processor is not None else _file(place, options)
    geometry = _geometry(config, sized=bool(options.size))
    how = {**geometry, **(_values(processor) if processor is not None else _named_values(config))}
    given = {name: value for name in pictures.NAMES if (value := getattr(options, name)) is not None}
    if options.size:
        given |= {"height": options.size[0], "width": options.size[1], "resize": given.get("resize", "stretch")}
    try:
        made = ImagePreprocess(**{**how, **given})
    except ValidationError as error:
        first = error.errors()[0]
        said = f"{'.'.join(map(str, first['loc']))} {first['msg'].removeprefix('Value error, ')}".strip()
        raise CommandError(f"The checkpoint's pictures cannot be prepared here: {said}.") from error
    if processor is not None and not given:
        _compare(processor, made)
    return made


def _processor(place: str) -> Any:
    """Return the checkpoint's image processor in its Pillow form; None when it cannot be loaded or run."""
    from transformers import AutoImageProcessor

    try:
        found = AutoImageProcessor.from_pretrained(place, backend="pil", trust_remote_code=False)
        _shown(found, (0, 0, 0))
        return found
    except Exception as error:  # noqa: BLE001 - such as RF-DETR's, which needs torchvision: the file is read instead
        refuse_code("The checkpoint's image processor", error)
        return None


def refuse_code(what: str, error: Exception) -> None:
    """Raise CommandError when an error says that `what` of a checkpoint needs its repository's own code."""
    if "trust_remote_code" in str(error):
        raise CommandError(
            f"{what} needs its repository's own code (auto_map), which is never run here: if you trust it, export the "
            "network to ONNX with that code and add the .onnx file."
        ) from error


def _file(place: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the content of `preprocessor_config.json`; nothing where it is missing and the options replace it."""
    from transformers.utils import cached_file

    try:
        path = cached_file(place, "preprocessor_config.json")
        return dict(json.loads(Path(str(path)).read_text("utf-8")))
    except Exception as error:
        if all(getattr(options, name) is not None for name in ("size", "scale", "mean", "std")):
            return {}
        raise CommandError(
            f"The checkpoint has no preprocessor_config.json: give --size HEIGHT,WIDTH, and {pictures.IMAGENET} or "
            "other values."
        ) from error


def _attributes(processor: Any) -> dict[str, Any]:
    names = ("do_resize", "size", "do_center_crop", "crop_size", "crop_pct", "resample", "image_processor_type")
    found = {name: getattr(processor, name, None) for name in names}
    return {**found, "image_processor_type": type(processor).__name__}


def _geometry(config: Mapping[str, Any], *, sized: bool) -> dict[str, Any]:
    """Return the resize rule of a processor's configuration in the terms of `ImagePreprocess`.

    With `sized` the user gives the size, and the configuration's filter alone is read.
    """
    if config.get("do_resize") is False and not sized:
        raise CommandError("The checkpoint does not resize its pictures: give --size HEIGHT,WIDTH.")
    resample = config.get("resample")
    # transformers' pipelines call `convert("RGB")`, which drops transparency.
    filter_ = Image.Resampling(int(2 if resample is None else resample)).name.lower()
    how: dict[str, Any] = {"resample": filter_, "alpha": "drop"}
    size, kind = _sides(config.get("size")), str(config.get("image_processor_type", ""))
    if kind.startswith("RfDetr"):
        how["resample"] = "opencv_linear"  # RfDetrImageProcessor resizes by torchvision with antialias=False
    if sized:
        return {**how, "rounding": "down"}
    crop = _sides(config.get("crop_size")) if config.get("do_center_crop") else {}
    if kind.startswith("ConvNext"):
        return {**how, **_convnext(size, config.get("crop_pct"))}
    if "height" in size and not crop:
        return {**how, "resize": "stretch", "height": size["height"], "width": size["width"]}
    if "height" in size and size["height"] == size["width"]:
        cut = {"height": crop["height"], "width": crop["width"]}
        return {**how, "resize": "stretch_center_crop", "resize_to": size["height"], "rounding": "down", **cut}
    if "shortest_edge" in size and crop:
        return {
            **how,
            "resize": "shortest_edge_center_crop",
            "resize_to": size["shortest_edge"],
            "rounding": "down",
            "height": crop["height"],
            "width": crop["width"],
        }
    if "shortest_edge" in size and "longest_edge" in size:
        multiple = {"multiple_of": 16} if kind.startswith("Yolos") else {}
        edges = {"resize_to": size["shortest_edge"], "longest_edge": size["longest_edge"]}
        return {**how, "resize": "shortest_edge", **edges, **multiple}
    cropped = f", cropped to {dict(crop)}" if crop else ""
    raise CommandError(f"Pictures of size {dict(size)}{cropped} cannot be prepared here: give --size HEIGHT,WIDTH.")


def _convnext(size: Mapping[str, int], crop: float | None) -> dict[str, Any]:
    """Return ConvNeXt's rule: below 384 pixels a crop of 7/8 (or `crop`), else the whole picture."""
    side = size["shortest_edge"]
    if side >= 384:
        return {"resize": "stretch", "height": side, "width": side}
    whole = int(side / (crop or 224 / 256))
    return {
        "resize": "shortest_edge_center_crop",
        "resize_to": whole,
        "rounding": "down",
        "height": side,
        "width": side,
    }


def _sides(size: Any) -> dict[str, int]:
    """Return a size's sides by name; older files hold one number for both sides."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    found = dict(size) if size else {}
    return {name: int(value) for name, value in found.items() if value}


def _values(processor: Any) -> dict[str, Any]:
    """Measure the channel order, and mean and std of (x * scale - mean) / std for each channel, on plain pictures."""
    black, white = _shown(processor, (0, 0, 0)), _shown(processor, (255, 255, 255))
    red = _shown(processor, (255, 0, 0))
    if np.allclose(black, white):
        raise CommandError("The checkpoint's processor gives black and white the same values.")
    is_bgr = int(np.abs(red - black).argmax()) == 2
    std = 1 / (white - black)
    return {
        "scale": 1 / 255,
        "mean": [round(float(value), 6) + 0.0 for value in -black * std],
        "std": [round(float(value), 6) for value in std],
        "channel_order": "BGR" if is_bgr else "RGB",
    }


def _shown(processor: Any, colour: tuple[int, int, int]) -> Any:
    made = np.asarray(processor(images=Image.new("RGB", (64, 64), colour), return_tensors="np")["pixel_values"])
    return made[0].mean(axis=(1, 2), dtype=np.float64)


def _named_values(config: Mapping[str, Any]) -> dict[str, Any]:
    normalised = config.get("do_normalize", True)
    mean = config.get("image_mean") or IMAGENET["image_mean"]
    std = config.get("image_std") or IMAGENET["image_std"]
    return {
        "scale": config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0,
        "mean": list(mean) if normalised else [0.0] * 3,
        "std": list(std) if normalised else [1.0] * 3,
    }


def _compare(processor: Any, how: ImagePreprocess) -> None:
    """Prepare photographs with both; raises CommandError when a value differs by more than one of 255 levels."""
    for path in sorted(SAMPLES.glob("*.jpg")):
        data = path.read_bytes()
        theirs = np.asarray(processor(images=upright(data), return_tensors="np")["pixel_values"])
        ours, _ = prepare(data, how, "FP32")
        level = how.scale / min(how.std)
        if theirs.shape != ours.shape or np.abs(theirs - ours).max() > 1.01 * level:
            raise CommandError(
                f"The checkpoint's {type(processor).__name__} prepares pictures in an unknown way: "
                f"give --size, --resize, --mean and --std."
            )
