"""The `/v1/infer` of NVIDIA's NIM for object detection, which AIPerf's endpoint type `image_retrieval` drives.

`{"input": [{"type": "image_url", "url": "data:image/jpeg;base64,..."}]}`, here with one image, gives boxes by label,
as fractions of the image's width and height.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from app.dialects.base import Call, Dialect, DialectRequest, Fields, MayBeLong, Result, checked

MEBIBYTE = 1024 * 1024


class NimBox(BaseModel):
    """A box, in fractions of the upright image's width and height."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    confidence: float


class NimImage(BaseModel):
    """The objects of one image, by label."""

    index: int
    bounding_boxes: dict[str, list[NimBox]]


class NimUsage(BaseModel):
    """The size of the input."""

    images_size_mb: float


class NimDetections(BaseModel):
    """The answer to one request."""

    data: list[NimImage]
    usage: NimUsage


class _Image(Fields):
    type: Literal["image_url"]
    url: Annotated[str, Field(pattern="^data:"), MayBeLong]


def _one(images: list[_Image]) -> list[_Image]:
    if len(images) != 1:
        raise PydanticCustomError("one_image", "must hold one image")
    return images


class _Body(Fields):
    input: Annotated[list[_Image], AfterValidator(_one)]


def read(fields: dict[str, Any]) -> DialectRequest:
    """Read the one image."""
    return DialectRequest(checked(_Body, fields, "input").input[0].url)


def write(result: Result, call: Call) -> dict[str, Any]:
    """Return the boxes by label, the labels and their boxes best first."""
    width, height = result["image"]["width"], result["image"]["height"]
    boxes: dict[str, list[dict[str, float]]] = {}
    for row in result["predictions"]:
        box = row["box"]
        boxes.setdefault(row["label"], []).append(
            {
                "x_min": round(box["xmin"] / width, 6),
                "y_min": round(box["ymin"] / height, 6),
                "x_max": round(box["xmax"] / width, 6),
                "y_max": round(box["ymax"] / height, 6),
                "confidence": row["score"],
            }
        )
    usage = {"images_size_mb": round(call.size / MEBIBYTE, 6)}
    return {"data": [{"index": 0, "bounding_boxes": boxes}], "usage": usage}


DIALECT = Dialect(
    name="nim",
    readers={"object-detection": read},
    writers={"object-detection": write},
    answers={"object-detection": NimDetections},
)
