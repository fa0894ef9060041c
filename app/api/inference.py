"""The steps of one inference that all routes share, from the headers to the answer.

begin -> accepted -> find -> (the route reads the item) -> question -> run -> as_json
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import Request, Response

from app import errors
from app.api.parts import Parts
from app.context import Context, Deadline
from app.http import accept
from app.tasks.base import Options, Task
from app.triton.question import Answer, Question
from app.triton.served import ServedModel


def begin(parts: Parts, request: Request) -> Context:
    """Return the context of a request, with its deadline set."""
    context = Context.of(request)
    context.spans = dict.fromkeys(("read", "wait", "triton", "encode"), 0.0)
    context.set_deadline(request.headers.get("x-request-timeout-ms"), parts.settings)
    return context


def accepted(request: Request, pictures: tuple[str, ...] = ()) -> str:
    """Return the media type of the answer: JSON, or one of `pictures` if the request prefers it.

    Raises:
        NotAcceptableError: when it takes none of them.

    """
    offered = (accept.JSON, *pictures)
    kind = accept.best(", ".join(request.headers.getlist("accept")), offered)
    if kind is None:
        raise errors.NotAcceptableError(f"This route answers {' or '.join(offered)}.")
    return kind


def find(parts: Parts, task: Task, options: Options, context: Context) -> ServedModel:
    """Return the model that the options name, or the task's default; called once for a request."""
    model = parts.catalog.find(task, options.model, options.version)
    context.model = model.name
    return model


def body_deadline(parts: Parts, context: Context) -> Deadline:
    """Return the deadline for the arrival of the body."""
    return context.deadline.within(parts.settings.body_timeout_s)


async def give_up_early(parts: Parts, model: ServedModel, context: Context) -> None:
    """Give a request up before its body is read, when its client has ended its side and would have to wait."""
    if context.hang_up is not None and not parts.admission.has_free_slot(model):
        context.hang_up()
        await asyncio.sleep(0)  # meanwhile the connection ends, and cancels the request


def question(model: ServedModel, options: Options, item: bytes, context: Context) -> Question:
    """Return the question that a request asks about one item."""
    return Question(
        model,
        options.version,
        (item,),
        options.parameters(),
        context.request_id,
        context.traceparent,
        context.deadline,
    )


async def run(parts: Parts, asked: Question, context: Context) -> dict[str, Any]:
    """Wait for a slot, ask Triton, and return the fields of the answer."""
    with context.span("wait"), context.wait_turn():
        slot = await parts.admission.enter(asked)
    with context.span("triton"):
        answer = await parts.coalescer.send(asked, slot)
    with context.span("encode"):
        return fields(asked.model, answer, context.request_id)


def fields(model: ServedModel, answer: Answer, request_id: str) -> dict[str, Any]:
    """Return the fields of the answer to one item.

    Raises:
        BackendError: when its tensors cannot be read, which is the model's fault.

    """
    try:
        result = model.task.decode(answer.tensors)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise errors.BackendError("The model's answer cannot be read.", model=model.name) from error
    return {"model": model.name, "version": answer.version, "request_id": request_id, **result}


def as_json(content: object) -> Response:
    """Return `content` as the answer; raises ValueError when it holds NaN or an infinity.

    Not by orjson: it writes those as null, and would save about 1 percent of the gateway's CPU for a text (5 us become
    0.3) and 3 percent for 64 texts (227 us become 14), computed from the cost in benchmarks/results/growth.md.

        python -m timeit -p -s "import json, orjson; c = [{'model': 'minilm_sentiment', 'label': 'positive', 'scores':
        [{'label': 'positive', 'score': 0.998812}] * 2, 'usage': {'tokens': 13}}] * 64" "json.dumps(c)"
    """
    return Response(
        json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(),
        media_type="application/json",
    )
