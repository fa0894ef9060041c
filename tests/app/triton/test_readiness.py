"""Readiness: canaries of default models, and tasks that had a default model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace

import grpc
import grpc.aio
import numpy as np
import pytest

from app.errors import BackendError, BatchFailedError
from app.http.drain import Drain
from app.tasks import BY_NAME
from app.telemetry.metrics import Metrics
from app.triton import catalog as catalogs
from app.triton.canary import Canaries, Readiness
from app.triton.catalog import Catalog
from app.triton.client import TritonClient
from app.triton.question import Answer, Question
from app.triton.served import ServedModel
from app.triton.servers import Servers


class Answering(TritonClient):
    """A Triton whose models all answer, except those that fail."""

    failing: tuple[str, ...] = ()

    async def infer(self, question: Question) -> Answer:
        if question.model.name in self.failing:
            raise BackendError("It fails.")
        return Answer("1", {"label": np.array([[b"any"]], object)})


def model(name: str, task: str, *, default: bool = True) -> ServedModel:
    """Return a model of a task."""
    return ServedModel(name, BY_NAME[task], ("1",), default, 1, ())


CLASSIFIER = model("classifier", "image-classification")
DETECTOR = model("detector", "object-detection")


def many(count: int) -> tuple[Servers, Catalog]:
    """Return several servers that answer, and their catalogue."""
    servers = Servers(tuple(f"server{number}:1" for number in range(count)), Metrics())
    servers.clients = [Answering(client.address, Metrics()) for client in servers.clients]
    for client in servers.clients:
        client.mark_reachable(True)
    return servers, Catalog(servers)


def readiness(*readings: Iterable[ServedModel]) -> Readiness:
    """Return the readiness after the catalogue was read several times, and found these models."""

    async def ask() -> Readiness:
        servers, catalog = many(1)
        for found in readings:
            servers.clients[0].models = {one.name: one for one in found}
            catalog._merge()
        return await Canaries(servers, catalog, lambda: False).readiness()

    return asyncio.run(ask())


def test_a_canary_whose_batch_failed_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton may have batched it with an item that breaks the network, which says nothing about the model."""
    asked: list[bool] = []

    async def infer(_: Answering, question: Question) -> Answer:
        asked.append(question.resent)
        if len(asked) == 1:
            raise BatchFailedError("A step failed.")
        return Answer("1", {"label": np.array([[b"any"]], object)})

    monkeypatch.setattr(Answering, "infer", infer)
    assert readiness([replace(CLASSIFIER, max_batch_size=8)]).ready
    assert asked == [False, True]


def test_served_default_models_are_ready() -> None:
    """A task that never had a default model is not missed."""
    assert readiness([CLASSIFIER]).ready
    assert readiness([CLASSIFIER], [CLASSIFIER, DETECTOR]).ready
    assert readiness([]).reason == "Triton serves no default model."


def test_a_default_model_that_is_gone_for_good_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long after it vanished the gateway is not ready, and names the task."""
    monkeypatch.setattr(catalogs, "REMEMBERED_S", 0)
    for left in ([CLASSIFIER], []):
        told = readiness([CLASSIFIER, DETECTOR], left)
        assert not told.ready
        assert "object-detection, which had one." in (told.reason or "")
    assert readiness([CLASSIFIER, DETECTOR], [CLASSIFIER], [CLASSIFIER, DETECTOR]).ready


@pytest.mark.parametrize("remembered_s", [0, 30])
def test_another_default_takes_the_place_of_one_that_was_removed(
    monkeypatch: pytest.MonkeyPatch, remembered_s: float
) -> None:
    """A task with any default model is served."""
    monkeypatch.setattr(catalogs, "REMEMBERED_S", remembered_s)
    assert readiness([CLASSIFIER, DETECTOR], [CLASSIFIER, model("better", "object-detection")]).ready


def test_a_model_that_was_no_default_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only models that callers get without a name count."""
    monkeypatch.setattr(catalogs, "REMEMBERED_S", 0)
    other = model("other", "object-detection", default=False)
    assert readiness([CLASSIFIER, other], [CLASSIFIER]).ready


def test_one_server_that_answers_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose canary fails gets no requests for that model until it answers again; the gateway is ready."""

    async def test() -> None:
        servers, catalog = many(2)
        for client in servers.clients:
            client.models = {CLASSIFIER.name: CLASSIFIER}
        catalog._merge()
        canaries = Canaries(servers, catalog, lambda: False)
        bad, good = servers.clients
        bad.failing = (CLASSIFIER.name,)  # type: ignore[attr-defined]
        assert (await canaries.readiness()).ready
        assert {servers.choose(CLASSIFIER.name) for _ in range(4)} == {good}
        bad.failing = ()  # type: ignore[attr-defined]
        for client, model in canaries._suspects():
            await canaries._failure(client, model)
        assert {servers.choose(CLASSIFIER.name) for _ in range(4)} == {bad, good}

    asyncio.run(test())


def test_a_server_that_hangs_does_not_hold_up_readiness() -> None:
    """The first correct answer is enough; a gateway that is stopping asks no server."""

    class Hanging(Answering):
        async def infer(self, *_: object, **__: object) -> Answer:  # type: ignore[override]
            await asyncio.sleep(60)
            raise AssertionError

    async def test() -> None:
        servers, catalog = many(2)
        servers.clients[0] = Hanging("hanging:1", Metrics())
        servers.clients[0].mark_reachable(True)
        for client in servers.clients:
            client.models = {CLASSIFIER.name: CLASSIFIER}
        catalog._merge()
        drain = Drain()
        canaries = Canaries(servers, catalog, lambda: drain.begun)
        async with asyncio.timeout(1):
            assert (await canaries.readiness()).ready
        servers.clients.pop()
        drain.begun = True
        async with asyncio.timeout(1):
            assert not (await canaries.readiness()).ready

    asyncio.run(test())


def test_an_answer_that_cannot_be_read_is_a_reason() -> None:
    """It is the model's failure, not an exception of the gateway."""

    class Odd(Answering):
        async def infer(self, *_: object, **__: object) -> Answer:  # type: ignore[override]
            return Answer("1", {})

    async def test() -> None:
        servers, catalog = many(1)
        servers.clients[0] = Odd("odd:1", Metrics())
        servers.clients[0].mark_reachable(True)
        servers.clients[0].models = {CLASSIFIER.name: CLASSIFIER}
        catalog._merge()
        told = await Canaries(servers, catalog, lambda: False).readiness()
        assert told.models[0].reason == "The model's answer cannot be read."

    asyncio.run(test())


def test_a_gateway_that_is_stopping_is_not_ready() -> None:
    """It gives the reason, even if its models answer."""

    async def test() -> None:
        servers, catalog = many(1)
        servers.clients[0].models = {CLASSIFIER.name: CLASSIFIER}
        catalog._merge()
        drain = Drain()
        canaries = Canaries(servers, catalog, lambda: drain.begun)
        assert (await canaries.readiness()).ready
        drain.begun = True
        told = await canaries.readiness()
        assert (told.ready, told.reason) == (False, "The gateway is stopping.")

    asyncio.run(test())


@pytest.mark.parametrize(("answers", "least"), [(False, 0.5), (True, 1.5)])
def test_a_start_waits_for_the_first_reading(answers: bool, least: float) -> None:
    """An unreachable Triton is known as absent after a second; an unreadable one is waited for until the timeout.
    waited for until the time is over.
    """

    async def wait() -> float:
        triton = grpc.aio.server()
        port = triton.add_insecure_port("127.0.0.1:0")
        if answers:
            await triton.start()
        else:
            await triton.stop(0)
        servers = Servers((f"127.0.0.1:{port}",), Metrics())
        catalog = Catalog(servers)
        await servers.open()
        reading = asyncio.create_task(catalog.keep_reading())
        begun = time.monotonic()
        await catalog.wait_until_read(1.5 if answers else 20)
        seconds = time.monotonic() - begun
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await servers.close()
        await triton.stop(0)
        return seconds

    assert least <= asyncio.run(wait()) < 10
