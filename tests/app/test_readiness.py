"""Readiness remembers which tasks had a default model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import numpy as np
import pytest

from app.tasks import BY_NAME
from app.triton import catalog as catalogs
from app.triton.canary import Canaries, Readiness
from app.triton.catalog import Catalog, ServedModel
from app.triton.client import Answer, TritonClient


class Answering(TritonClient):
    """A Triton whose models all answer."""

    async def infer(self, *_: object, **__: object) -> Answer:  # type: ignore[override]
        return Answer("1", {"label": np.array([[b"any"]], object)})


def model(name: str, task: str, *, default: bool = True) -> ServedModel:
    """Return a model of a task."""
    return ServedModel(name, BY_NAME[task], ("1",), default, 1, ())


CLASSIFIER = model("classifier", "image-classification")
DETECTOR = model("detector", "object-detection")


def readiness(*readings: Iterable[ServedModel]) -> Readiness:
    """Return the readiness after the catalogue was read so often, and found these models."""

    async def ask() -> Readiness:
        client = Answering("nowhere:1")
        catalog = Catalog(client)
        for found in readings:
            catalog._replace({one.name: one for one in found}, {})
        return await Canaries(client, catalog).readiness()

    return asyncio.run(ask())


def test_what_is_served_is_ready() -> None:
    """Default models that answer make the gateway ready; a task that never had one is not missed."""
    assert readiness([CLASSIFIER]).ready
    assert readiness([CLASSIFIER], [CLASSIFIER, DETECTOR]).ready
    assert readiness([]).reason == "Triton serves no default model."


def test_a_default_model_that_is_gone_for_good_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long after it vanished the gateway is not ready, and says for which task."""
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
    """A task that has a default model is served, whichever it had before."""
    monkeypatch.setattr(catalogs, "REMEMBERED_S", remembered_s)
    assert readiness([CLASSIFIER, DETECTOR], [CLASSIFIER, model("better", "object-detection")]).ready


def test_a_model_that_was_no_default_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what callers get without naming it counts."""
    monkeypatch.setattr(catalogs, "REMEMBERED_S", 0)
    other = model("other", "object-detection", default=False)
    assert readiness([CLASSIFIER, other], [CLASSIFIER]).ready
