"""A route's options, read from the query string."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams

from app.errors import InvalidParameterError
from app.http.validation import first, sentence

MAX_CACHED = 256
MAX_OPTIONS = 1100
"""Options in one query: `classes` may be given a thousand times."""

Model = TypeVar("Model", bound=BaseModel)


def read(kind: type[Model], query: bytes) -> Model:
    """Return the options of a query. Short queries are cached, because most of them repeat.

    Raises:
        InvalidParameterError: when an option is unknown, out of its range or given twice.

    """
    return cast(Model, _cached(kind, query) if len(query) <= MAX_CACHED else _read(kind, query))


def _read(kind: type[BaseModel], query: bytes) -> BaseModel:
    if query.count(b"&") >= MAX_OPTIONS:
        raise InvalidParameterError(f"A query may have {MAX_OPTIONS} options at most.")
    given = QueryParams(query)
    several = _lists(kind)
    try:
        options = kind.model_validate({name: given.getlist(name) if name in several else given[name] for name in given})
    except ValidationError as error:
        found = first(error)
        raise InvalidParameterError(f"{found['loc'][0]} {sentence(found)}.") from error
    for name in given:
        # Taking the last would hide a mistake.
        if name not in several and len(given.getlist(name)) > 1:
            raise InvalidParameterError(f"{name} must be given once.")
    return options


_cached = lru_cache(maxsize=1024)(_read)


@lru_cache
def _lists(kind: type[BaseModel]) -> frozenset[str]:
    """Return the options that may be given several times."""
    return frozenset(
        name
        for name, field in kind.model_fields.items()
        if any(get_origin(part) is list for part in (field.annotation, *get_args(field.annotation)))
    )
