"""The parts of the OpenAPI document that are written by hand: headers, bodies, examples, and the answer of a batch.

Headers and bodies are read from the request itself (`app.http.lifecycle`, `app.context`, `app.http.media`), so FastAPI
knows none of them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from app import errors
from app.http import problems
from app.http.problems import Problem
from app.tasks.base import Task


def _header(name: str, description: str, **schema: object) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


REQUEST_HEADERS = [
    _header(
        "X-Request-ID",
        "An id for this request, shown in its answer and in the logs. The gateway replaces an id that does not match.",
        type="string",
        pattern="^[!-~]{1,128}$",
    ),
    _header(
        "X-Request-Timeout-Ms",
        "The request's deadline, which includes reading its body; capped by the server.",
        type="integer",
        minimum=1,
    ),
    _header("traceparent", "The caller's trace context (W3C), handed on to Triton.", type="string"),
]
ANSWER_HEADERS = {
    "X-Request-ID": {"description": "The request's id.", "schema": {"type": "string"}},
    "Server-Timing": {
        "description": "Where the time went, in ms: `read`, `wait`, `triton`, `encode`.",
        "schema": {"type": "string"},
    },
}
URL = {
    "type": "string",
    "format": "uri",
    "description": "http or https. Refused unless this gateway allows the host; redirects are not followed.",
}


class FailedItem(BaseModel):
    """An item of a batch that got no result."""

    model_config = ConfigDict(extra="forbid")

    index: int
    error: Problem


def batch_model(task: Task) -> type[BaseModel]:
    """Return the answer of a task's batch route."""
    item = create_model(f"{task.result.__name__}Item", __base__=task.result, index=(int, ...))
    return create_model(f"{task.result.__name__}Batch", results=(list[item | FailedItem], ...), failed=(int, ...))  # type: ignore[valid-type]


def batch_example(task: Task) -> dict[str, Any]:
    """Return a batch answer with one result and one problem."""
    refused = errors.ImageUndecodableError if task.input == "image" else errors.TextEmptyError
    error = problems.problem(refused((refused.__doc__ or "").strip()), problems.EXAMPLE_REQUEST_ID)
    rows = [{"index": 0, **task.example}, {"index": 1, "error": error.model_dump(exclude_none=True)}]
    return {"results": rows, "failed": 1}


def success(example: dict[str, Any], pictures: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the description of a 200 answer; `pictures` are the media types that `Accept` may name."""
    content: dict[str, Any] = {"application/json": {"example": example}}
    if not pictures:
        return {"content": content, "headers": ANSWER_HEADERS}
    content |= {kind: {"schema": {"type": "string", "format": "binary"}} for kind in pictures}
    drawn = "the upright image with boxes, labels and scores drawn on it"
    description = f"The answer as JSON; with `Accept: {pictures[0]}`, {drawn}."
    return {"description": description, "content": content, "headers": ANSWER_HEADERS}


def request(task: Task, *, many: bool) -> dict[str, Any]:
    """Return the description of a task route's headers and body."""
    return {"parameters": REQUEST_HEADERS, "requestBody": _request_body(task, many=many)}


def _request_body(task: Task, *, many: bool) -> dict[str, Any]:
    """Describe the body by hand: it is read by `app.http.media`, and FastAPI's file fields lack `format: binary`."""
    name = f"{task.input}s" if many else task.input
    if task.input == "text":
        return {"required": True, "content": {"application/json": _text_schema(name, many=many)}}
    file = {"type": "string", "format": "binary"}
    part: dict[str, Any] = {"type": "array", "items": file} if many else file
    form = {"type": "object", "properties": {name: part}, "required": [name], "additionalProperties": False}
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": form},
        "application/json": _base64_schema(name, many=many),
    }
    if not many:
        content |= {kind: {"schema": file} for kind in ("image/*", "application/octet-stream")}
    return {"required": True, "content": content}


def _text_schema(name: str, *, many: bool) -> dict[str, Any]:
    examples = ["I love this camera.", "Profit fell by a third."]
    text = {"type": "string", "minLength": 1}
    value = {"type": "array", "items": text, "minItems": 1} if many else text
    return _object(name, value, examples if many else examples[0])


def _base64_schema(name: str, *, many: bool) -> dict[str, Any]:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
    image = {"type": "string", "description": "Base64, or a data: URL that holds base64."}
    if many:
        return _object(name, {"type": "array", "items": image, "minItems": 1}, [pixel])
    forms = {
        "image": _object("image", image, pixel),
        "image_url": _object("image_url", URL, "https://images.example/a.jpg"),
    }
    return {
        "schema": {"oneOf": [form["schema"] for form in forms.values()]},
        "examples": {name: {"value": form["example"]} for name, form in forms.items()},
    }


def _object(name: str, value: dict[str, Any], example: object) -> dict[str, Any]:
    schema = {"type": "object", "properties": {name: value}, "required": [name], "additionalProperties": False}
    return {"schema": schema, "example": {name: example}}
