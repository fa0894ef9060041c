"""The type `Task`: a route, its options, the tensors that a model must have, and the function that reads them.

query -> Options -> parameters of the gRPC call -> tensors -> result (one item of the answer)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

Tensors = Mapping[str, npt.NDArray[Any]]
Parameter = int | float | bool | str


def _spelled(pattern: str, kind: str) -> BeforeValidator:
    """Refuse a text of the query that does not match: pydantic takes everything that Python's int() takes, as 5_0."""

    def check(value: object) -> object:
        if isinstance(value, str) and re.fullmatch(pattern, value) is None:
            raise PydanticCustomError("spelling", "must be {kind}", {"kind": kind})
        return value

    return BeforeValidator(check)


WHOLE_NUMBER = _spelled(r"-?[0-9]+", "a whole number such as 1")
NUMBER = _spelled(r"-?[0-9]*\.?[0-9]+(e-?[0-9]+)?", "a number such as 0.5")
FLAG = _spelled(r"true|false", "true or false")
VERSION = r"^[1-9][0-9]{0,9}$"


class Options(BaseModel):
    """The query of every task route; unknown names are refused."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str | None, Field(min_length=1, max_length=256, description="Default: the task's default.")] = None
    version: Annotated[
        str | None,
        Field(pattern=VERSION, description="Default: the newest."),
        _spelled(VERSION, "a whole number such as 1"),
    ] = None

    def parameters(self) -> dict[str, Parameter]:
        """Return the options that the model's steps read, by the names of the query."""
        given = self.model_dump(exclude_none=True, exclude={"model", "version", "format"})
        return {name: json.dumps(value) if isinstance(value, list) else value for name, value in given.items()}


class Result(BaseModel):
    """The first fields of every answer."""

    model: str
    version: str
    request_id: str


class ImageSize(BaseModel):
    """Pixels of the upright image."""

    width: int
    height: int


Score = Annotated[float, Field(ge=0, le=1, description="A probability.")]


class Prediction(BaseModel):
    """One class."""

    label: str
    class_id: int
    score: Score


@dataclass(frozen=True)
class Tensor:
    """One tensor of the contract: its Triton data type and its dims without the batch; -1 is any length."""

    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """One task. `decode` reads the tensors of one item, each of leading axis 1, into the fields of the answer."""

    name: str
    route: str
    summary: str
    input: Literal["image", "text"]
    outputs: Mapping[str, Tensor]
    options: type[Options]
    result: type[Result]
    decode: Callable[[Tensors], dict[str, Any]]
    example: dict[str, Any]
    pictures: tuple[str, ...] = ()
    """The media types besides JSON in which an answer may be requested."""

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """The one input of the contract."""
        return {self.input: Tensor("STRING", (1,))}


PREDICTIONS: Mapping[str, Tensor] = {
    "label": Tensor("STRING", (-1,)),
    "class_id": Tensor("INT32", (-1,)),
    "score": Tensor("FP32", (-1,)),
    "image_size": Tensor("INT32", (2,)),
}
"""The outputs of every task that predicts classes from an image."""


def texts(array: npt.NDArray[Any]) -> list[str]:
    """Return the strings of a BYTES tensor of shape [1, k]."""
    return [value.decode("utf-8", "replace") for value in array[0]]


def scores(array: npt.NDArray[Any]) -> list[float]:
    """Return the FP32 probabilities of shape [1, k], to six decimals: more than that is noise of float32."""
    values: list[float] = array[0].tolist()
    if not all(map(math.isfinite, values)):
        raise ValueError("a score is not finite")
    return [round(value, 6) for value in values]


def image_size(tensors: Tensors) -> dict[str, int]:
    """Return the upright size from `image_size`, INT32 [1, 2]."""
    width, height = tensors["image_size"][0].tolist()
    return {"width": width, "height": height}


def predictions(tensors: Tensors) -> list[dict[str, Any]]:
    """Return the fields of each `Prediction` from `label`, `class_id` and `score` of shape [1, k]."""
    rows = zip(texts(tensors["label"]), tensors["class_id"][0].tolist(), scores(tensors["score"]), strict=True)
    return [{"label": label, "class_id": class_id, "score": score} for label, class_id, score in rows]
