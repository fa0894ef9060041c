"""What `huggingface_hub.InferenceClient` sends and expects: the schemas of `@huggingface/tasks` for three tasks.

Images come as raw bytes, or with parameters as `{"inputs": "<base64>", "parameters": {...}}`; texts always as JSON.
Boxes are whole pixels, cut as the pipelines of transformers cut them: the schemas say integer.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from app.dialects.base import Call, Dialect, DialectRequest, Fields, MayBeLong, Result, checked
from app.errors import GatewayError

TopK = Annotated[int | None, Field(ge=1)]


class HfLabel(BaseModel):
    """A label with its probability."""

    label: str
    score: float


class HfBox(BaseModel):
    """Whole pixels of the upright image."""

    xmin: int
    ymin: int
    xmax: int
    ymax: int


class HfDetection(HfLabel):
    """An object."""

    box: HfBox


class _TopK(Fields):
    top_k: TopK = None


class _Threshold(Fields):
    threshold: Annotated[float | None, Field(ge=0, le=1)] = None


class _LabelsBody(Fields):
    inputs: Annotated[str, MayBeLong]
    parameters: _TopK = _TopK()


class _DetectionBody(Fields):
    inputs: Annotated[str, MayBeLong]
    parameters: _Threshold = _Threshold()


def read_classification(fields: dict[str, Any]) -> DialectRequest:
    """Read a body of an image classification; `top_k` is the task's own option."""
    body = checked(_LabelsBody, fields, "inputs")
    return DialectRequest(body.inputs, body.parameters.model_dump(exclude_none=True))


def read_detection(fields: dict[str, Any]) -> DialectRequest:
    """Read a body of an object detection; `threshold` becomes `score_threshold`."""
    body = checked(_DetectionBody, fields, "inputs")
    threshold = body.parameters.threshold
    return DialectRequest(body.inputs, {} if threshold is None else {"score_threshold": threshold})


def read_text(fields: dict[str, Any]) -> DialectRequest:
    """Read a body of a text classification; `top_k` cuts the list of all labels."""
    body = checked(_LabelsBody, fields, "inputs")
    return DialectRequest(body.inputs, max_labels=body.parameters.top_k)


def write_classification(result: Result, _: Call) -> list[dict[str, Any]]:
    """Return the labels, best first."""
    return [{"label": row["label"], "score": row["score"]} for row in result["predictions"]]


def write_detection(result: Result, _: Call) -> list[dict[str, Any]]:
    """Return the objects, best first."""
    return [
        {
            "label": row["label"],
            "score": row["score"],
            "box": {side: int(pixel) for side, pixel in row["box"].items()},
        }
        for row in result["predictions"]
    ]


def write_text(result: Result, call: Call) -> list[list[dict[str, Any]]]:
    """Return the labels, best first, in a list of one: the client takes the first list of the answer."""
    return [result["scores"][: call.request.max_labels]]


def problem_headers(error: GatewayError) -> dict[str, str]:
    """Return the header in which the client looks for the reason, as the Hub sends it: it reads no problem bodies."""
    # A header holds printable ASCII only.
    return {"X-Error-Message": "".join(sign if " " <= sign <= "~" else "?" for sign in error.detail)}


DIALECT = Dialect(
    name="hf",
    readers={
        "image-classification": read_classification,
        "object-detection": read_detection,
        "text-classification": read_text,
    },
    writers={
        "image-classification": write_classification,
        "object-detection": write_detection,
        "text-classification": write_text,
    },
    answers={
        "image-classification": list[HfLabel],
        "object-detection": list[HfDetection],
        "text-classification": list[list[HfLabel]],
    },
)
