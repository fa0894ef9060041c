"""The fixed paths of Roboflow's `inference-sdk`, below `/roboflow`: both versions of its API.

The second API reads the registry, then posts JSON that names the model. The first posts base64 to `/{model}/{version}`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app import errors
from app.api import formats, inference, openapi
from app.api.parts import Parts
from app.api.tasks import COMMON_ERRORS, INPUT_ERRORS
from app.context import Context
from app.dialects import roboflow
from app.dialects.base import DialectRequest
from app.http import problems, query
from app.http.body import Body
from app.http.media import JSON, media_type
from app.tasks import BY_NAME
from app.tasks.base import Task
from app.triton.question import Question
from app.triton.served import ServedModel

# The client's names of the tasks; the last part of its path is the same in snake case.
TASK_TYPES = {"image-classification": "classification", "object-detection": "object-detection"}
ENCODED = (JSON, "application/x-www-form-urlencoded", "text/plain")


BODIES: dict[str, type[roboflow.Body]] = {
    "image-classification": roboflow.ClassificationBody,
    "object-detection": roboflow.DetectionBody,
}


class RoboflowModel(BaseModel):
    """One name of a model."""

    model_id: str
    task_type: str


class RoboflowModels(BaseModel):
    """The served models."""

    models: list[RoboflowModel]


def router(parts: Parts) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/roboflow", tags=["roboflow"])
    possible = problems.responses(*COMMON_ERRORS, *INPUT_ERRORS["image"])

    @routes.get("/model/registry", summary="List the models", responses=problems.responses(errors.InternalError))
    async def registry() -> RoboflowModels:
        return _registry(parts)

    @routes.post(
        "/model/add",
        summary="Find a model that is served",
        responses=possible,
        openapi_extra=_described(roboflow.ModelBody.model_json_schema(), JSON),
    )
    async def add(request: Request) -> RoboflowModels:
        inference.accepted(request)
        context = inference.begin(parts, request)
        with Body(request, parts.budget, inference.body_deadline(parts, context)) as body:
            fields = await parts.media.fields(request, body, "text")
        _served(parts, roboflow.read_model(fields))
        return _registry(parts)

    for task in (BY_NAME[name] for name in TASK_TYPES):
        _add_second(routes, parts, task, possible)

    @routes.post(
        "/{model}/{version}",
        summary="Ask a model, by the first API",
        response_model=roboflow.RoboflowClassification | roboflow.RoboflowDetections,
        responses=possible,
        openapi_extra=_described(
            {"type": "string", "description": "The image as base64."}, *ENCODED, options=roboflow.Query
        ),
    )
    async def first(model: str, version: str, request: Request) -> Response:
        inference.accepted(request)
        context = inference.begin(parts, request)
        given = query.read(roboflow.Query, request.scope["query_string"])
        served = _served(parts, f"{model}/{version}")
        asked = roboflow.read_query(served.task.name, f"{model}/{version}", given)
        options = formats.merged(served.task.options(), asked)
        parts.admission.check(served, context.deadline, context.request_id)
        with Body(request, parts.budget, inference.body_deadline(parts, context)) as body:
            with context.span("read"):
                if media_type(request) not in ENCODED:
                    raise errors.UnsupportedMediaTypeError(f"Send the image as base64, with {' or '.join(ENCODED)}.")
                item = await parts.media.encoded_image(body)
            context.model = served.name
            return await _answer(parts, inference.question(served, options, item, context), asked, context)

    return routes


def _add_second(routes: APIRouter, parts: Parts, task: Task, possible: dict[int | str, dict[str, Any]]) -> None:
    @routes.post(
        f"/infer/{TASK_TYPES[task.name].replace('-', '_')}",
        name=f"roboflow_{task.route}",
        summary=task.summary,
        response_model=roboflow.DIALECT.answers[task.name],
        responses=possible,
        openapi_extra=_described(_schema(BODIES[task.name]), JSON),
    )
    async def second(request: Request) -> Response:
        inference.accepted(request)
        context = inference.begin(parts, request)
        with Body(request, parts.budget, inference.body_deadline(parts, context)) as body:
            with context.span("read"):
                asked = roboflow.DIALECT.readers[task.name](await parts.media.fields(request, body, "image"))
                item = await parts.media.value(asked.item, "image")
            options = formats.merged(task.options(), asked)
            model = inference.find(parts, task, options, context)
            return await _answer(parts, inference.question(model, options, item, context), asked, context)


def _schema(body: type[roboflow.Body]) -> dict[str, Any]:
    """Return the schema of a body, with what it refers to inside it."""
    schema = body.model_json_schema()
    (image,) = schema.pop("$defs").values()
    schema["properties"]["image"] = image
    return schema


def _described(schema: dict[str, Any], *kinds: str, options: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return the description of a route's headers, query and body."""
    content = {kind: {"schema": schema} for kind in kinds}
    known = {} if options is None else options.model_json_schema()["properties"]
    query_parameters = [{"name": name, "in": "query", "required": False, "schema": its} for name, its in known.items()]
    return {
        "parameters": [*query_parameters, *openapi.REQUEST_HEADERS],
        "requestBody": {"required": True, "content": content},
    }


async def _answer(parts: Parts, question: Question, asked: DialectRequest, context: Context) -> Response:
    result = await inference.run(parts, question, context)
    with context.span("encode"):
        return inference.as_json(formats.to_dialect(roboflow.DIALECT, question, result, asked, context))


def _served(parts: Parts, model_id: str) -> ServedModel:
    """Return the model of that id.

    Raises:
        GatewayError: ModelNotFound and others, as the catalogue does.

    """
    name, _, version = model_id.partition("/")
    model = parts.catalog.get(name)
    if model.task.name not in TASK_TYPES:
        raise errors.ModelNotFoundError("No model of this name serves a task that this client supports.", model=name)
    model.check(version or None)
    return model


def _registry(parts: Parts) -> RoboflowModels:
    """List every model twice: by its name, and with each version as the first API wants it."""
    models = [model for model in parts.catalog.models() if model.task.name in TASK_TYPES and not model.fault]
    return RoboflowModels(
        models=[
            RoboflowModel(model_id=model_id, task_type=TASK_TYPES[model.task.name])
            for model in models
            for model_id in (model.name, *(f"{model.name}/{version}" for version in model.versions))
        ]
    )
