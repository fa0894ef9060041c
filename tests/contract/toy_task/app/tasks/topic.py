"""A text -> its topic."""

from __future__ import annotations

from typing import Any

from app.tasks.base import Options, Result, Task, Tensor, Tensors, texts


class Topic(Result):
    """The topic of one text."""

    topic: str


def decode(tensors: Tensors) -> dict[str, Any]:
    """Read `topic` of shape [1, 1]."""
    return {"topic": texts(tensors["topic"])[0]}


TASK = Task(
    name="text-topic",
    route="topic",
    summary="Name the topic of a text",
    input="text",
    outputs={"topic": Tensor("STRING", (1,))},
    options=Options,
    result=Topic,
    decode=decode,
    example={"model": "toy", "version": "1", "request_id": "a", "topic": "sports"},
)
