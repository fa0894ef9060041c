"""What Roboflow's `inference-sdk` sends and expects: detection and classification, in both versions of its API.

Boxes are the pixels of their centres and their sizes. Options that would change nothing here are accepted
when they are off, because the client always sends some of them; options without an equivalent are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import NAMESPACE_OID, uuid5

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.dialects.base import Call, Dialect, DialectRequest, Fields, MayBeLong, Result, Word, checked
from app.errors import InvalidParameterError


def _off(value: bool | None) -> bool | None:
    if value:
        raise PydanticCustomError("unsupported", "has no equivalent here: leave it off")
    return value


def _none_if_default(value: object) -> object:
    return None if value == "default" else value


def _one(value: object) -> object:
    if isinstance(value, list):
        raise PydanticCustomError("one_image", "must be one image: leave max_batch_size at 1")
    return value


def _fraction(value: float | None) -> float | None:
    """Read 1 and more as percent, as Roboflow's first API does."""
    return value / 100 if value is not None and value >= 1 else value


Off = Annotated[bool | None, AfterValidator(_off)]
Fraction = Annotated[float | None, Field(ge=0, le=1), BeforeValidator(_none_if_default)]
Percent = Annotated[float | None, Field(ge=0, le=100), BeforeValidator(_none_if_default), AfterValidator(_fraction)]
MaxBoxes = Annotated[int | None, Field(ge=1, le=1000)]
Key = Annotated[str | None, Field(description="Ignored; send keys in the header Authorization.")]


class RoboflowImage(BaseModel):
    """Pixels of the upright image."""

    width: int
    height: int


class RoboflowClass(BaseModel):
    """A class."""

    model_config = ConfigDict(populate_by_name=True)

    class_name: Annotated[str, Field(alias="class")]
    class_id: int
    confidence: float


class RoboflowObject(RoboflowClass):
    """An object: the pixels of its centre, and its size."""

    x: float
    y: float
    width: float
    height: float
    detection_id: str


class _RoboflowAnswer(BaseModel):
    inference_id: Annotated[str, Field(description="The request's id.")]
    time: Annotated[float, Field(description="Triton's time, in seconds.")]
    image: RoboflowImage


class RoboflowDetections(_RoboflowAnswer):
    """The objects of an image, best first."""

    predictions: list[RoboflowObject]


class RoboflowClassification(_RoboflowAnswer):
    """The classes of an image, best first."""

    predictions: list[RoboflowClass]
    top: str
    confidence: float


class _Base64Image(Fields):
    type: Literal["base64"]
    value: Annotated[str, MayBeLong]


class Body(Fields):
    """The fields that every body of the second API may have."""

    image: Annotated[_Base64Image, BeforeValidator(_one)]
    model_id: Word | None = None
    api_key: Key = None
    disable_preproc_auto_orient: Off = None
    disable_preproc_contrast: Off = None
    disable_preproc_grayscale: Off = None
    disable_preproc_static_crop: Off = None
    visualize_predictions: Off = None
    disable_active_learning: bool | None = None


class ClassificationBody(Body):
    """A body of `/infer/classification`."""

    include_anomaly_map: Off = None


class DetectionBody(Body):
    """A body of `/infer/object_detection`."""

    confidence: Fraction = None
    iou_threshold: Fraction = None
    max_detections: MaxBoxes = None
    class_filter: list[Word] | None = None
    class_agnostic_nms: Off = None
    fix_batch_size: Off = None


class ModelBody(Fields):
    """A body of `/model/add`."""

    model_id: Word
    api_key: Key = None


class Query(BaseModel):
    """The query of the first API."""

    model_config = ConfigDict(extra="forbid")

    api_key: Key = None
    confidence: Annotated[Percent, Field(description="A fraction below 1, or a percentage from 1.")] = None
    overlap: Annotated[Percent, Field(description="A fraction below 1, or a percentage from 1.")] = None
    max_detections: MaxBoxes = None
    format: Literal["json"] | None = None
    disable_preproc_auto_orient: Off = None
    disable_preproc_contrast: Off = None
    disable_preproc_grayscale: Off = None
    disable_preproc_static_crop: Off = None
    disable_active_learning: bool | None = None
    include_anomaly_map: Off = None
    allow_reduced_mask_resolution: Off = None


def _options(model_id: str | None, **options: object) -> dict[str, Any]:
    """Return the options that are given, and the model that `model_id` names: `name` or `name/version`."""
    if model_id is not None:
        name, _, version = model_id.partition("/")
        options |= {"model": name, "version": version or None}
    return {name: value for name, value in options.items() if value is not None}


def read_classification(fields: dict[str, Any]) -> DialectRequest:
    """Read a body of `/infer/classification`."""
    body = checked(ClassificationBody, fields, "image")
    return DialectRequest(body.image.value, _options(body.model_id))


def read_detection(fields: dict[str, Any]) -> DialectRequest:
    """Read a body of `/infer/object_detection`: `confidence` becomes `score_threshold`, `class_filter` `classes`."""
    body = checked(DetectionBody, fields, "image")
    options = _options(
        body.model_id,
        score_threshold=body.confidence,
        iou_threshold=body.iou_threshold,
        max_detections=body.max_detections,
        classes=body.class_filter,
    )
    return DialectRequest(body.image.value, options)


def read_model(fields: dict[str, Any]) -> str:
    """Read a body of `/model/add`."""
    return checked(ModelBody, fields, "model_id").model_id


def read_query(task: str, model_id: str, query: Query) -> DialectRequest:
    """Read the query of the first API, whose body is the item: `overlap` becomes `iou_threshold`.

    Raises:
        InvalidParameterError: when a classification has an option of boxes.

    """
    if task == "image-classification":
        for name in ("confidence", "overlap", "max_detections"):
            if getattr(query, name) is not None:
                raise InvalidParameterError(f"{name} has no equivalent for a classification.")
    options = _options(
        model_id,
        score_threshold=query.confidence,
        iou_threshold=query.overlap,
        max_detections=query.max_detections,
    )
    return DialectRequest(options=options)


def write_classification(result: Result, call: Call) -> dict[str, Any]:
    """Return the classes, best first."""
    rows = [_class(row) for row in result["predictions"]]
    best = rows[0]
    return {**_about(result, call), "predictions": rows, "top": best["class"], "confidence": best["confidence"]}


def write_detection(result: Result, call: Call) -> dict[str, Any]:
    """Return the objects, best first."""
    rows = [_object(row, f"{result['request_id']}/{index}") for index, row in enumerate(result["predictions"])]
    return {**_about(result, call), "predictions": rows}


def _about(result: Result, call: Call) -> dict[str, Any]:
    return {"inference_id": result["request_id"], "time": round(call.seconds, 6), "image": result["image"]}


def _class(row: dict[str, Any]) -> dict[str, Any]:
    return {"class": row["label"], "class_id": row["class_id"], "confidence": row["score"]}


def _object(row: dict[str, Any], name: str) -> dict[str, Any]:
    box = row["box"]
    return {
        "x": round((box["xmin"] + box["xmax"]) / 2, 3),
        "y": round((box["ymin"] + box["ymax"]) / 2, 3),
        "width": round(box["xmax"] - box["xmin"], 3),
        "height": round(box["ymax"] - box["ymin"], 3),
        **_class(row),
        "detection_id": str(uuid5(NAMESPACE_OID, name)),
    }


DIALECT = Dialect(
    name="roboflow",
    readers={"image-classification": read_classification, "object-detection": read_detection},
    writers={"image-classification": write_classification, "object-detection": write_detection},
    answers={"image-classification": RoboflowClassification, "object-detection": RoboflowDetections},
)
