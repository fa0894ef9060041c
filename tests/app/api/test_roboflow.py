"""Roboflow's paths without a server: both versions of its API ask the model that they name, looked up once."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import numpy as np
import pytest

from app.api import roboflow
from app.api.application import Gateway
from app.http.drain import Drain
from app.scheduling.slot import Slot
from app.tasks import detection
from app.telemetry.metrics import Metrics
from app.triton.catalog import Catalog
from app.triton.question import Answer, Question
from app.triton.served import ServedModel
from tests.standins import triton

MODEL = ServedModel("m", detection.TASK, ("1", "2"), True, 1, ())
IMAGE = base64.b64encode(b"an image").decode()
ANSWER = {
    "box": np.array([[[0, 0, 2, 4]]], np.float32),
    "label": np.array([[b"cat"]], object),
    "class_id": np.array([[7]], np.int32),
    "score": np.array([[0.5]], np.float32),
    "image_size": np.array([[4, 4]], np.int32),
}


@pytest.mark.parametrize(
    ("path", "sent", "version", "parameters"),
    [
        ("/roboflow/m/2?confidence=40", {"content": IMAGE}, "2", {"score_threshold": 0.4}),
        (
            "/roboflow/infer/object_detection",
            {"json": {"model_id": "m/1", "image": {"type": "base64", "value": IMAGE}, "confidence": 0.4}},
            "1",
            {"score_threshold": 0.4},
        ),
    ],
    ids=["first", "second"],
)
def test_both_apis_ask_the_model_that_they_name(
    monkeypatch: pytest.MonkeyPatch, path: str, sent: Any, version: str, parameters: Any
) -> None:
    """Version and options reach the model; the answer has the client's format."""
    asked: list[Question] = []
    lookups = []

    async def send(question: Question, slot: Slot) -> Answer:
        asked.append(question)
        slot.end()
        return Answer(version, ANSWER)

    for name in ("find", "get"):
        method = getattr(Catalog, name)
        monkeypatch.setattr(Catalog, name, lambda *given, method=method: lookups.append(method) or method(*given))

    async def ask() -> httpx.Response:
        parts = triton.parts(send, MODEL)
        parts.catalog._merge()
        app = Gateway(parts.settings, Metrics(), Drain())
        app.include_router(roboflow.router(parts))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            headers = {"Content-Type": "application/x-www-form-urlencoded"} if "content" in sent else {}
            return await client.post(path, headers=headers, **sent)

    answer = asyncio.run(ask())
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["predictions"]
    assert (row["class"], row["x"], row["y"], row["width"], row["height"]) == ("cat", 1, 2, 2, 4)
    (question,) = asked
    assert (question.model, question.version, question.items) == (MODEL, version, (b"an image",))
    assert question.parameters == parameters
    assert len(lookups) == 1
