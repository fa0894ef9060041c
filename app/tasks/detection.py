"""Object detection: an image -> boxes, best first."""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from app.drawing.contract import MEDIA_TYPES
from app.tasks.base import (
    FLAG,
    NUMBER,
    PREDICTIONS,
    WHOLE_NUMBER,
    ImageSize,
    Options,
    Prediction,
    Result,
    Task,
    Tensor,
    Tensors,
    image_size,
    predictions,
)


def _thresholds(text: str) -> str:
    """Refuse what is no JSON object of scores; the model alone knows its labels."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise PydanticCustomError("thresholds", 'must be a JSON object such as {"person": 0.6}')
    for score in given.values():
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise PydanticCustomError("thresholds", "must give each label a number from 0 to 1")
    return text


class DetectionOptions(Options):
    """The query of `/v1/detect`."""

    score_threshold: Annotated[float | None, Field(ge=0, le=1, description="Default: the model's."), NUMBER] = None
    iou_threshold: Annotated[float | None, Field(ge=0, le=1, description="Default: the model's."), NUMBER] = None
    max_detections: Annotated[int | None, Field(ge=1, le=1000, description="Default: the model's."), WHOLE_NUMBER] = (
        None
    )
    classes: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=200)]] | None,
        Field(max_length=1000, description="Labels or class ids to look for; repeat it for several."),
    ] = None

    agnostic_nms: Annotated[
        bool | None,
        Field(description="Boxes of different classes suppress each other too. Default: the model's."),
        FLAG,
    ] = None
    class_thresholds: Annotated[
        str | None,
        Field(
            max_length=20_000,
            description="JSON object of labels or class ids, each with the score that replaces score_threshold for it.",
            examples=['{"person": 0.6}'],
        ),
        AfterValidator(_thresholds),
    ] = None


class Box(BaseModel):
    """Pixels of the upright image, origin top left."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float


class Detection(Prediction):
    """One object."""

    box: Box


class Detections(Result):
    """The objects of one image, best first."""

    image: ImageSize
    predictions: list[Detection]


def decode(tensors: Tensors) -> dict[str, Any]:
    """Read `box` of shape [1, k, 4], `label`, `class_id` and `score` of shape [1, k], and `image_size`."""
    if not np.isfinite(tensors["box"]).all():
        raise ValueError("a box is not finite")
    boxes = np.round(tensors["box"][0].astype(np.float64), 2).tolist()
    rows = [
        {**prediction, "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))}
        for prediction, box in zip(predictions(tensors), boxes, strict=True)
    ]
    return {"image": image_size(tensors), "predictions": rows}


TASK = Task(
    name="object-detection",
    route="detect",
    summary="Detect objects in an image",
    input="image",
    outputs={"box": Tensor("FP32", (-1, 4)), **PREDICTIONS},
    options=DetectionOptions,
    result=Detections,
    decode=decode,
    pictures=MEDIA_TYPES,
    example={
        "model": "lite_detector",
        "version": "1",
        "request_id": "0190f3a2-7c1e-7b6a-9d54-3f1f0c9a8b21",
        "image": {"width": 512, "height": 512},
        "predictions": [
            {
                "label": "person",
                "class_id": 0,
                "score": 0.89,
                "box": {"xmin": 50.1, "ymin": 12.0, "xmax": 455.3, "ymax": 509.9},
            }
        ],
    },
)
