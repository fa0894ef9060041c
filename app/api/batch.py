"""The batch route of a task: many items, one call each, and an answer or a problem for each."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from fastapi import Request, Response

from app import errors
from app.api import inference
from app.api.parts import Parts
from app.context import Context
from app.http import problems, query
from app.http.body import Body
from app.http.media import Item
from app.scheduling.slot import Batch
from app.tasks.base import Options, Task
from app.triton.question import Answer, Question
from app.triton.served import ServedModel

MAX_ITEMS_AT_ONCE = 16
"""Items of one batch with Triton at once: enough to fill its batches, few enough to leave room for others."""

Result = dict[str, Any] | errors.GatewayError


async def serve(parts: Parts, task: Task, options_type: type[Options], request: Request) -> Response:
    """Answer a batch."""
    options = query.read(options_type, request.scope["query_string"])
    inference.accepted(request)
    context = inference.begin(parts, request)
    model = inference.find(parts, task, options, context)
    await inference.give_up_early(parts, model, context)
    with Body(request, parts.budget, inference.body_deadline(parts, context)) as body:
        with context.span("read"):
            read = parts.media.images if task.input == "image" else parts.media.texts
            items = await read(request, body)
        admitted = parts.admission.admit(model, len(items), context.deadline)
        with admitted as batch, context.span("triton"):
            asked = inference.question(model, options, b"", context)
            answers = await infer_all(parts, batch, asked, items, context)
        # One item's wait is not Triton's time, although other items were with Triton meanwhile.
        context.spans["triton"] -= context.spans["wait"]
    with context.span("encode"):
        results = [_result(model, answer, context) for answer in answers]
        if (error := _shared_failure(results)) is not None:
            raise error
        rows = [_row(parts, index, result, context) for index, result in enumerate(results)]
        return inference.as_json({"results": rows, "failed": sum("error" in row for row in rows)})


async def infer_all(
    parts: Parts, batch: Batch, asked: Question, items: list[Item], context: Context
) -> list[Answer | errors.GatewayError]:
    """Ask the question about every item, a few at a time; return answers and failures in order."""
    room = asyncio.Semaphore(MAX_ITEMS_AT_ONCE)

    async def one(item: Item) -> Answer | errors.GatewayError:
        if isinstance(item, errors.GatewayError):
            return item
        with context.wait_turn():
            await room.acquire()
        try:
            question = replace(asked, items=(item,))
            with context.longest("wait"), context.wait_turn():
                slot = await parts.admission.wait(question, batch)
            return await parts.coalescer.send(question, slot)
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


def _result(model: ServedModel, answer: Answer | errors.GatewayError, context: Context) -> Result:
    if isinstance(answer, errors.GatewayError):
        return answer
    try:
        return inference.fields(model, answer, context.request_id)
    except errors.GatewayError as error:
        return error


def _shared_failure(results: list[Result]) -> errors.GatewayError | None:
    """Return the error of all items if it is not an item's fault, such as a wrong option or an absent Triton."""
    failed = [result for result in results if isinstance(result, errors.GatewayError)]
    if len(failed) < len(results) or len({type(error) for error in failed}) != 1:
        return None
    blameless = failed[0].retryable or isinstance(failed[0], errors.InvalidParameterError | errors.UnsupportedError)
    return failed[0] if blameless else None


def _row(parts: Parts, index: int, result: Result, context: Context) -> dict[str, Any]:
    if isinstance(result, errors.GatewayError):
        parts.metrics.count_item(result.code)
        return {"index": index, "error": problems.problem(result, context.request_id).model_dump(exclude_none=True)}
    parts.metrics.count_item("")
    return {"index": index, **result}
