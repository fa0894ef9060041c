"""The routes of the tasks, two for each entry of `TASKS`: one item, and a batch.

request -> options -> model of the catalogue -> items -> one gRPC call each -> answer
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app import errors
from app.api import formats, openapi
from app.api.application import Endpoint
from app.api.parts import Parts
from app.context import Context
from app.dialects.base import Asked
from app.drawing.pool import MAX_DRAWN_PIXELS
from app.http import accept, problems, query
from app.http.body import Body
from app.http.media import Item
from app.memory import Held
from app.scheduling.admission import Batch, Place
from app.tasks import TASKS
from app.tasks.base import Options, Task
from app.triton.messages import Answer
from app.triton.served import ServedModel

# So many items of one batch are with Triton at once: enough to fill its batches, few enough to leave room for others.
ITEMS_AT_ONCE = 16

COMMON_ERRORS: tuple[type[errors.GatewayError], ...] = (
    errors.MalformedRequestError,
    errors.ForbiddenError,
    errors.ModelNotFoundError,
    errors.VersionNotFoundError,
    errors.NotAcceptableError,
    errors.RequestBodyTimeoutError,
    errors.BodyTooLargeError,
    errors.UnsupportedMediaTypeError,
    errors.InvalidParameterError,
    errors.InvalidTensorError,
    errors.OverloadedError,
    errors.InternalError,
    errors.UnsupportedError,
    errors.BackendError,
    errors.BackendUnavailableError,
    errors.ModelNotReadyError,
    errors.DeadlineExceededError,
)
INPUT_ERRORS: dict[str, tuple[type[errors.GatewayError], ...]] = {
    "image": (errors.ImageTooLargeError, errors.ImageUndecodableError),
    "text": (errors.TextEmptyError,),
}


def endpoints(parts: Parts) -> dict[str, Endpoint]:
    """Return what serves the routes of all tasks, by path."""
    made: dict[str, Endpoint] = {}
    for task in TASKS:
        made[f"/v1/{task.route}"] = partial(_single, parts, task, formats.with_format(task))
        made[f"/v1/{task.route}/batch"] = partial(_batch, parts, task)
    return made


def router() -> APIRouter:
    """Return the routes of all tasks, for the OpenAPI document and for wrong methods; see `app.api.application`."""
    routes = APIRouter(prefix="/v1", tags=["tasks"])
    for task in TASKS:
        _document(routes, task)
    return routes


def _documented(options_type: type[Options]) -> Any:
    async def documented(options: Any) -> None:
        raise AssertionError(options)  # served by `endpoints`

    # Annotations of nested functions are texts here: FastAPI is told the type itself.
    documented.__annotations__ = {"options": Annotated[options_type, Query()]}
    return documented


def _document(routes: APIRouter, task: Task) -> None:
    possible = (*COMMON_ERRORS, *INPUT_ERRORS[task.input])
    routes.add_api_route(
        f"/{task.route}",
        _documented(formats.with_format(task)),
        methods=["POST"],
        name=task.route,
        summary=task.summary,
        response_model=formats.answers(task),
        responses={200: openapi.success(task.example, task.pictures), **problems.responses(*possible)},
        openapi_extra=openapi.request(task, many=False),
    )
    routes.add_api_route(
        f"/{task.route}/batch",
        _documented(task.options),
        methods=["POST"],
        name=f"{task.route}_batch",
        summary=f"{task.summary}, many at a time",
        response_model=openapi.batch_model(task),
        responses={
            200: openapi.success(openapi.batch_example(task)),
            **problems.responses(*possible, errors.BatchTooLargeError),
        },
        openapi_extra=openapi.request(task, many=True),
    )


async def _single(parts: Parts, task: Task, options_type: type[Options], request: Request) -> Response:
    options = query.read(options_type, request.scope["query_string"])
    dialect = formats.of(options)
    kind = accepted(request, () if dialect else task.pictures)
    context = begin(parts, request)
    if dialect is None or options.model is not None:  # else the body may name the model
        model = find(parts, task, options, context)
        parts.admission.check(model, context.left_s(), context.request_id)
        await _give_up_early(parts, model, context)
    asked = Asked()
    with Body(request, parts.budget, body_timeout(parts, context)) as body:
        with context.span("read"):
            if dialect is not None:
                item, options, asked = await formats.read(parts.media, task, dialect, request, body, options)
            else:
                read = parts.media.image if task.input == "image" else parts.media.text
                item = await read(request, body)
        model = find(parts, task, options, context)
        result = await run(parts, model, options, item, context)
        with context.span("encode"):
            if dialect is not None:
                return as_json(formats.tell(dialect, model, result, item, asked, context))
            if kind == accept.JSON:
                return as_json(result)
            return await _picture(parts, item, result, kind, context)


async def _give_up_early(parts: Parts, model: ServedModel, context: Context) -> None:
    """Spare the reading of a body that is of no use: its client has ended its side, and would have to wait."""
    if context.hang_up is not None and not parts.admission.is_free(model):
        context.hang_up()
        await asyncio.sleep(0)  # meanwhile the connection ends, and cancels the request


async def _picture(parts: Parts, item: bytes, result: dict[str, Any], kind: str, context: Context) -> Response:
    """Return the drawn answer; its bytes are held until they are handed to the connection, which counts them then."""
    held = Held(parts.budget)
    context.answered.append(held.give_back)
    # Before it is drawn nobody knows its size: a byte a pixel is what photographs take as PNG at most.
    held.resize(min(result["image"]["width"] * result["image"]["height"], MAX_DRAWN_PIXELS))
    picture = await parts.drawing.picture(item, result["predictions"], kind, context.left_s())
    held.resize(len(picture))
    return Response(picture, media_type=kind)


async def run(parts: Parts, model: ServedModel, options: Options, item: bytes, context: Context) -> dict[str, Any]:
    """Wait for a place, ask Triton for one item, and return the fields of the answer."""
    with context.span("wait"), context.wait_turn():
        place = await parts.admission.enter(model, context.left_s(), context.request_id)
    with context.span("triton"):
        answer = await _infer(parts, place, model, options, item, context)
    with context.span("encode"):
        return _fields(model, answer, context)


async def _batch(parts: Parts, task: Task, request: Request) -> Response:
    options = query.read(task.options, request.scope["query_string"])
    accepted(request)
    context = begin(parts, request)
    model = find(parts, task, options, context)
    await _give_up_early(parts, model, context)
    with Body(request, parts.budget, body_timeout(parts, context)) as body:
        with context.span("read"):
            read = parts.media.images if task.input == "image" else parts.media.texts
            items = await read(request, body)
        admitted = parts.admission.admit(model, len(items), context.left_s())
        with admitted as batch, context.span("triton"):
            answers = await _infer_all(parts, batch, model, options, items, context)
        # What one item waited is no time of Triton's, though others were there meanwhile.
        context.spans["triton"] -= context.spans["wait"]
    with context.span("encode"):
        results = [_result(model, answer, context) for answer in answers]
        if (error := _shared_failure(results)) is not None:
            raise error
        rows = [_row(parts, index, result, context) for index, result in enumerate(results)]
        return as_json({"results": rows, "failed": sum("error" in row for row in rows)})


def begin(parts: Parts, request: Request) -> Context:
    """Return the context of a request, with its deadline set."""
    context = Context.of(request)
    context.spans = dict.fromkeys(("read", "wait", "triton", "encode"), 0.0)
    context.set_deadline(request.headers.get("x-request-timeout-ms"), parts.settings)
    return context


def find(parts: Parts, task: Task, options: Options, context: Context) -> ServedModel:
    """Return the model that the options name, or the task's default."""
    model = parts.catalog.find(task, options.model, options.version)
    context.model = model.name
    return model


def body_timeout(parts: Parts, context: Context) -> float:
    """Return the time, in seconds, within which a body must arrive."""
    return max(0.0, min(parts.settings.body_timeout_s, context.left_s()))


def accepted(request: Request, pictures: tuple[str, ...] = ()) -> str:
    """Return the media type of the answer: JSON, or one of `pictures` where the request would rather have that.

    Raises:
        NotAcceptableError: when it takes none of them.

    """
    offered = (accept.JSON, *pictures)
    kind = accept.best(", ".join(request.headers.getlist("accept")), offered)
    if kind is None:
        raise errors.NotAcceptableError(f"This route answers {' or '.join(offered)}.")
    return kind


async def _infer(
    parts: Parts, place: Place, model: ServedModel, options: Options, item: bytes, context: Context
) -> Answer:
    return await parts.calls.infer(
        *(place, model, options.version, item, options.parameters()),
        *(context.request_id, context.left_s, context.traceparent),
    )


async def _infer_all(
    parts: Parts, batch: Batch, model: ServedModel, options: Options, items: list[Item], context: Context
) -> list[Answer | errors.GatewayError]:
    room = asyncio.Semaphore(ITEMS_AT_ONCE)

    async def one(item: Item) -> Answer | errors.GatewayError:
        if isinstance(item, errors.GatewayError):
            return item
        with context.wait_turn():
            await room.acquire()
        try:
            with context.longest("wait"), context.wait_turn():
                place = await parts.admission.wait(model, context.left_s(), batch)
            return await _infer(parts, place, model, options, item, context)
        except errors.GatewayError as error:
            return error
        finally:
            room.release()

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    except Exception:  # a fault of ours: no other item goes on without its batch
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _fields(model: ServedModel, answer: Answer, context: Context) -> dict[str, Any]:
    """Return the answer to one item; tensors that do not make sense are the model's fault."""
    try:
        result = model.task.decode(answer.tensors)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise errors.BackendError("The model's answer cannot be read.", model=model.name) from error
    return {"model": model.name, "version": answer.version, "request_id": context.request_id, **result}


def _result(
    model: ServedModel, answer: Answer | errors.GatewayError, context: Context
) -> dict[str, Any] | errors.GatewayError:
    if isinstance(answer, errors.GatewayError):
        return answer
    try:
        return _fields(model, answer, context)
    except errors.GatewayError as error:
        return error


def _shared_failure(results: list[dict[str, Any] | errors.GatewayError]) -> errors.GatewayError | None:
    """Return why all items failed when none of them is to blame: a wrong option, or a Triton that is not there."""
    failed = [result for result in results if isinstance(result, errors.GatewayError)]
    if len(failed) < len(results) or len({type(error) for error in failed}) != 1:
        return None
    blameless = failed[0].retryable or isinstance(failed[0], errors.InvalidParameterError | errors.UnsupportedError)
    return failed[0] if blameless else None


def _row(parts: Parts, index: int, result: dict[str, Any] | errors.GatewayError, context: Context) -> dict[str, Any]:
    if isinstance(result, errors.GatewayError):
        parts.metrics.count_item(result.code)
        return {"index": index, "error": problems.problem(result, context.request_id).model_dump(exclude_none=True)}
    parts.metrics.count_item("")
    return {"index": index, **result}


def as_json(content: object) -> Response:
    """Return `content` as the answer."""
    return Response(
        json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(),
        media_type="application/json",
    )
