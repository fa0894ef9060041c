"""The served models: sorted, with one default for each task; vanished ones are remembered for a while."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import ModelNotFoundError, ModelNotReadyError
from app.tasks import classification, sentiment
from app.tasks.base import Task
from app.telemetry.metrics import Metrics
from app.triton.catalog import Catalog
from app.triton.served import ServedModel
from app.triton.servers import Servers


def model(name: str, task: Task = sentiment.TASK, *, default: bool = False) -> ServedModel:
    """Return a model."""
    return ServedModel(name, task, ("1",), default, 1, ())


def read(*readings: tuple[ServedModel, ...]) -> Catalog:
    """Return the catalogue after its one server was read several times, and served these models."""
    servers = Servers(("nowhere:1",), Metrics())
    servers.clients[0].mark_reachable(True)
    catalog = Catalog(servers)

    async def merge() -> None:
        for models in readings:
            servers.clients[0].models = {one.name: one for one in models}
            catalog._merge()

    asyncio.run(merge())
    return catalog


def test_models_are_listed_by_name() -> None:
    """The server's order does not matter."""
    catalog = read((model("c"), model("a"), model("b", classification.TASK)))
    assert [one.name for one in catalog.models()] == ["a", "b", "c"]


def test_a_task_has_one_default() -> None:
    """Of several, the first by name; never a model of another task."""
    catalog = read((model("c", default=True), model("b", default=True), model("a", classification.TASK, default=True)))
    assert catalog.find(sentiment.TASK, None).name == "b"
    assert catalog.find(classification.TASK, None).name == "a"


def test_defaults_come_and_go() -> None:
    """A replaced default gets no more requests, and a vanished one may return."""
    first, second = model("first", default=True), model("second", default=True)

    async def find(*readings: tuple[ServedModel, ...]) -> ServedModel:
        catalog = await asyncio.to_thread(read, *readings)
        return catalog.find(sentiment.TASK, None)

    assert asyncio.run(find((first,), (second,))) is second
    with pytest.raises(ModelNotReadyError):
        asyncio.run(find((first,), (model("other"),)))


def test_a_model_of_another_task_is_not_found() -> None:
    """A route finds the models of its task only."""

    async def find() -> None:
        catalog = await asyncio.to_thread(read, (model("m"),))
        catalog.find(classification.TASK, "m")

    with pytest.raises(ModelNotFoundError):
        asyncio.run(find())
