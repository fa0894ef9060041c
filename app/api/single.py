"""The single route of a task: one item, in the gateway's words or a dialect, answered as JSON or as a picture."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from app.api import formats, inference
from app.api.parts import Parts
from app.context import Context
from app.drawing.contract import MAX_DRAWN_PIXELS
from app.http import accept, query
from app.http.body import Body
from app.memory import Held
from app.tasks.base import Options, Task


async def serve(parts: Parts, task: Task, options_type: type[Options], request: Request) -> Response:
    """Answer one item."""
    options = query.read(options_type, request.scope["query_string"])
    dialect = formats.of(options)
    kind = inference.accepted(request, () if dialect else task.pictures)
    context = inference.begin(parts, request)
    model = None
    if dialect is None or options.model is not None:  # otherwise the body may name the model
        model = inference.find(parts, task, options, context)
        parts.admission.check(model, context.deadline, context.request_id)
        await inference.give_up_early(parts, model, context)
    given = None
    with Body(request, parts.budget, inference.body_deadline(parts, context)) as body:
        with context.span("read"):
            if dialect is not None:
                item, options, given = await formats.read(parts.media, task, dialect, request, body, options)
            else:
                read = parts.media.image if task.input == "image" else parts.media.text
                item = await read(request, body)
        if model is None:
            model = inference.find(parts, task, options, context)
        asked = inference.question(model, options, item, context)
        result = await inference.run(parts, asked, context)
        with context.span("encode"):
            if dialect is not None and given is not None:
                return inference.as_json(formats.to_dialect(dialect, asked, result, given, context))
            if kind == accept.JSON:
                return inference.as_json(result)
            return await _picture(parts, item, result, kind, context)


async def _picture(parts: Parts, item: bytes, result: dict[str, Any], kind: str, context: Context) -> Response:
    """Return the drawn answer; its bytes are held until they are handed to the connection, which counts them then."""
    held = Held(parts.budget)
    context.answered.append(held.give_back)
    # Its size is not known before it is drawn: photographs take a byte per pixel as PNG at most.
    held.resize(min(result["image"]["width"] * result["image"]["height"], MAX_DRAWN_PIXELS))
    picture = await parts.drawing.picture(item, result["predictions"], kind, context.deadline)
    held.resize(len(picture))
    return Response(picture, media_type=kind)
