"""The option `format` of the single routes: the dialect in which a request is read and answered."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import Field, ValidationError, create_model

from app.context import Context
from app.dialects import BY_NAME, DIALECTS
from app.dialects.base import Call, Dialect, DialectRequest
from app.errors import BackendError, InvalidParameterError
from app.http.body import Body
from app.http.media import JSON, Media, media_type
from app.http.validation import first, sentence
from app.tasks.base import Options, Task
from app.triton.question import Question

FORMAT = "The client whose JSON bodies are read and whose answers are given. Default: the gateway's own format."


def with_format(task: Task) -> type[Options]:
    """Return the task's options with `format`, which single routes have and batches do not.

    The options of a task that no dialect speaks stay as they are.
    """
    names = tuple(dialect.name for dialect in DIALECTS if task.name in dialect.answers)
    if not names:
        return task.options
    kind = Annotated[Literal[names] | None, Field(description=FORMAT)]  # type: ignore[valid-type]
    return create_model(f"Single{task.options.__name__}", __base__=task.options, format=(kind, None))


def answers(task: Task) -> Any:
    """Return the types of a task's answers in all formats, for the OpenAPI document."""
    types = [dialect.answers[task.name] for dialect in DIALECTS if task.name in dialect.answers]
    return reduce(or_, types, task.result)


def of(options: Options) -> Dialect | None:
    """Return the dialect that the query names."""
    name: str | None = getattr(options, "format", None)
    return None if name is None else BY_NAME[name]


async def read(
    media: Media, task: Task, dialect: Dialect, request: Request, body: Body, options: Options
) -> tuple[bytes, Options, DialectRequest]:
    """Read a body: JSON in the dialect; images also as the plain routes take them, or without a content type.

    Returns:
        the item, the options of query and body together, and the body's own request.

    """
    kind = media_type(request)
    if kind == JSON or task.input == "text":
        given = dialect.readers[task.name](await media.fields(request, body, task.input))
        return await media.value(given.item, task.input), merged(options, given), given
    image = await (media.image(request, body) if kind else media.raw_image(body))
    return image, options, DialectRequest()


def merged(options: Options, request: DialectRequest) -> Options:
    """Return the query's options with those of the body.

    Raises:
        InvalidParameterError: when one is in both, or out of the task's bounds.

    """
    given = options.model_dump(exclude_none=True)
    for name in request.options:
        if name in given:
            raise InvalidParameterError(f"{name} is given in the query and in the body.")
    try:
        return type(options).model_validate({**given, **request.options}, strict=True)
    except ValidationError as error:
        found = first(error)
        raise InvalidParameterError(f"{found['loc'][0]} {sentence(found)}.") from error


def to_dialect(
    dialect: Dialect, question: Question, result: dict[str, Any], request: DialectRequest, context: Context
) -> Any:
    """Return the fields of the plain answer in the dialect.

    Raises:
        BackendError: when the model gave no label, or an image without pixels.

    """
    model, (item,) = question.model, question.items
    try:
        return dialect.writers[model.task.name](result, Call(len(item), context.spans["triton"], request))
    except (IndexError, ZeroDivisionError) as error:
        raise BackendError("The model's answer cannot be read.", model=model.name) from error
