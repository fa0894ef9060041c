"""The routes of the tasks, served directly, or by FastAPI if they have a dependency."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import APIRouter, Depends
from starlette.middleware.gzip import GZipMiddleware

from app.api import tasks
from app.api.application import Gateway
from app.errors import ForbiddenError
from app.http.drain import Drain
from app.scheduling.slot import Slot
from app.settings import Settings
from app.tasks import TASKS, sentiment
from app.telemetry.metrics import Metrics
from app.triton.catalog import Catalog
from app.triton.question import Answer, Question
from app.triton.served import ServedModel
from tests.standins import triton

MODEL = ServedModel("m", sentiment.TASK, ("1",), True, 1, ())
PATHS = {f"/v1/{task.route}{end}" for task in TASKS for end in ("", "/batch")}
ANSWER = {
    "label": np.array([[b"good"]], object),
    "score": np.array([[1]], np.float32),
    "token_count": np.array([[3]], np.int32),
    "truncated": np.array([[False]]),
}


async def send(_: Question, slot: Slot) -> Answer:
    """Answer as Triton would."""
    slot.end()
    return Answer("1", ANSWER)


def parts(*models: ServedModel) -> Any:
    """Return what routes call, with a Triton that serves these models."""
    return triton.parts(send, *models)


def gateway(**options: Any) -> Gateway:
    """Return an application without routes."""
    return Gateway(Settings(), Metrics(), Drain(), **options)


def post(app: Gateway, *paths: str, body: object = None) -> list[httpx.Response]:
    """Return the answers to a text, or to this body, at each path."""

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return [await client.post(path, json=body or {"text": "a"}) for path in paths]

    return asyncio.run(ask())


def refuse() -> None:
    """Refuse every request."""
    raise ForbiddenError("The dependency refuses.")


def of_application() -> Gateway:
    app = gateway(dependencies=[Depends(refuse)])
    app.include_router(tasks.router(parts()))
    return app


def of_inclusion() -> Gateway:
    app = gateway()
    app.include_router(tasks.router(parts()), dependencies=[Depends(refuse)])
    return app


def of_router() -> Gateway:
    app = gateway()
    around = APIRouter(dependencies=[Depends(refuse)])
    around.include_router(tasks.router(parts()))
    app.include_router(around)
    return app


def test_task_routes_are_served_directly() -> None:
    """Every documented task route is served, and without FastAPI's machinery."""
    app = gateway()
    app.include_router(tasks.router(parts()))
    assert app._direct.keys() == PATHS
    assert {path for path in app.openapi()["paths"] if path.startswith("/v1/")} == PATHS


@pytest.mark.parametrize("made", [of_application, of_inclusion, of_router])
def test_a_dependency_of_a_task_route_is_run(made: Any) -> None:
    """FastAPI runs it wherever it was added; its refusal is answered as a problem."""
    for answer in post(made(), *PATHS):
        assert (answer.status_code, answer.json()["detail"]) == (403, "The dependency refuses.")


def test_a_route_with_dependencies_is_served_as_the_others_are() -> None:
    """With or without dependencies, requests and wrong options get the same answers."""
    ran = []
    app, direct = gateway(), gateway()
    app.include_router(tasks.router(parts()), dependencies=[Depends(lambda: ran.append(1))])
    direct.include_router(tasks.router(parts()))
    paths = ("/v1/sentiment", "/v1/sentiment?model=other", "/v1/sentiment?top_k=1", "/v1/classify?top_k=x")
    for one, other in zip(post(app, *paths), post(direct, *paths), strict=True):
        assert (one.status_code, one.json()["code"]) == (other.status_code, other.json()["code"])
        assert one.json()["detail"] == other.json()["detail"]
    assert len(ran) == len(paths)
    assert not app._direct


def test_middleware_is_refused() -> None:
    """Task routes would bypass it without notice."""
    with pytest.raises(RuntimeError, match="lifecycle"):
        gateway().add_middleware(GZipMiddleware)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/sentiment", {"text": "a"}),
        ("/v1/sentiment?model=m&version=1", {"text": "a"}),
        ("/v1/sentiment?format=hf", {"inputs": "a"}),
        ("/v1/sentiment?format=hf&model=m", {"inputs": "a"}),
        ("/v1/sentiment/batch", {"texts": ["a", "b", "c"]}),
    ],
)
def test_a_request_looks_its_model_up_once(monkeypatch: pytest.MonkeyPatch, path: str, body: object) -> None:
    """The query or the body may name the model."""
    found = []
    find = Catalog.find

    def counted(catalog: Catalog, *asked: Any) -> ServedModel:
        found.append(asked)
        return find(catalog, *asked)

    monkeypatch.setattr(Catalog, "find", counted)
    made = parts(MODEL)

    async def read() -> None:
        made.catalog._merge()

    asyncio.run(read())
    app = gateway()
    app.include_router(tasks.router(made))
    (answer,) = post(app, path, body=body)
    assert answer.status_code == 200, answer.text
    assert len(found) == 1
