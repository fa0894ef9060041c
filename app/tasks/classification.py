"""Image classification: an image -> labels, best first."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from app.tasks.base import (
    PREDICTIONS,
    WHOLE_NUMBER,
    ImageSize,
    Options,
    Prediction,
    Result,
    Task,
    Tensors,
    image_size,
    predictions,
)


class ClassificationOptions(Options):
    """The query of `/v1/classify`."""

    top_k: Annotated[
        int | None, Field(ge=1, le=100_000, description="1 to the number of classes. Default 5."), WHOLE_NUMBER
    ] = None


class Classification(Result):
    """The classes of one image, best first."""

    image: ImageSize
    predictions: list[Prediction]


def decode(tensors: Tensors) -> dict[str, Any]:
    """Read `label`, `class_id` and `score` of shape [1, k], and `image_size`."""
    return {"image": image_size(tensors), "predictions": predictions(tensors)}


TASK = Task(
    name="image-classification",
    route="classify",
    summary="Classify an image",
    input="image",
    outputs=PREDICTIONS,
    options=ClassificationOptions,
    result=Classification,
    decode=decode,
    example={
        "model": "efficientnet_lite0",
        "version": "1",
        "request_id": "0190f3a2-7c1e-7b6a-9d54-3f1f0c9a8b21",
        "image": {"width": 600, "height": 400},
        "predictions": [{"label": "espresso", "class_id": 967, "score": 0.779}],
    },
)
