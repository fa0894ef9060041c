"""The type `Dialect`: functions that read a dialect's bodies and write the gateway's results in its format.

body -> DialectRequest (an item, options of the task) -> one inference -> result, Call -> answer
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from app.errors import InvalidParameterError, MalformedRequestError
from app.http.json_reader import LongText
from app.http.validation import first, sentence

Result = Mapping[str, Any]


@dataclass(frozen=True)
class DialectRequest:
    """A request from a JSON body, in the gateway's terms.

    Attributes:
        item: the image as base64, or the text; it is checked where it is decoded.
        options: options of the task, by the names of the query.
        max_labels: limit on the labels of the answer, where the task has no option for this.

    """

    item: object = None
    options: Mapping[str, Any] = field(default_factory=dict)
    max_labels: int | None = None


@dataclass(frozen=True)
class Call:
    """Further values for an answer: the item's size in bytes, Triton's time in seconds, and the request."""

    size: int
    seconds: float
    request: DialectRequest


@dataclass(frozen=True)
class Dialect:
    """One dialect. Its functions are pure.

    Attributes:
        name: the value of the option `format`.
        readers: by task name, the function that reads the JSON object of a body.
        writers: by task name, the function that writes the answer from the fields of the gateway's own answer.
        answers: by task name, the type of the answer, for the OpenAPI document.

    """

    name: str
    readers: Mapping[str, Callable[[dict[str, Any]], DialectRequest]]
    writers: Mapping[str, Callable[[Result, Call], Any]]
    answers: Mapping[str, Any]


def _unicode(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("unicode", "must be valid Unicode") from error
    return value


Word = Annotated[str, AfterValidator(_unicode)]
"""A text that UTF-8 can encode: JSON can hold half a surrogate pair, UTF-8 cannot."""


def _may_be_long(value: object, check: ValidatorFunctionWrapHandler) -> object:
    if not isinstance(value, LongText):
        return check(value)
    check(value.beginning())
    return value


MayBeLong = WrapValidator(_may_be_long)
"""Marks the text that holds the item. It may be a LongText, of which only the beginning is validated."""


class Fields(BaseModel):
    """The fields of a JSON body; others are refused, so that nothing is silently ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


Checked = TypeVar("Checked", bound=Fields)


def checked(kind: type[Checked], fields: dict[str, Any], item: str) -> Checked:
    """Return the fields of a body as `kind`; `item` is the field that holds the image or the text.

    Raises:
        MalformedRequestError: when the item is missing or of a wrong type, or a name is not valid Unicode.
        InvalidParameterError: when another field is missing, unknown or out of bounds.

    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        found = first(error)
        if not found["loc"]:  # pydantic gives no location for a name that it cannot read
            raise MalformedRequestError("The names in the body are not valid Unicode.") from error
        name = ".".join(str(part) for part in found["loc"])
        detail = f"{name} {sentence(found)}."
        if found["loc"][0] == item:
            raise MalformedRequestError(detail) from error
        raise InvalidParameterError(detail) from error
