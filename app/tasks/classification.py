"""Image classification: an image -> labels, best first."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from app.tasks.base import (
    WHOLE_NUMBER,
    ImageSize,
    Options,
    Result,
    Score,
    Task,
    Tensor,
    Tensors,
    image_size,
    scores,
    texts,
)


class ClassificationOptions(Options):
    """The query of `/v1/classify`."""

    top_k: Annotated[
        int | None, Field(ge=1, le=100_000, description="1 to the number of classes. Default 5."), WHOLE_NUMBER
    ] = None


class Prediction(BaseModel):
    """One class."""

    label: str
    class_id: int
    score: Score


class Classification(Result):
    """The classes of one image, best first."""

    image: ImageSize
    predictions: list[Prediction]


def decode(tensors: Tensors) -> dict[str, Any]:
    """Read `label`, `class_id` and `score` of shape [1, k], and `image_size`."""
    rows = zip(texts(tensors["label"]), tensors["class_id"][0].tolist(), scores(tensors["score"]), strict=True)
    predictions = [{"label": label, "class_id": class_id, "score": score} for label, class_id, score in rows]
    return {"image": image_size(tensors), "predictions": predictions}


TASK = Task(
    name="image-classification",
    route="classify",
    summary="Classify an image",
    input="image",
    outputs={
        "label": Tensor("STRING", (-1,)),
        "class_id": Tensor("INT32", (-1,)),
        "score": Tensor("FP32", (-1,)),
        "image_size": Tensor("INT32", (2,)),
    },
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
