"""Puts the gateway together: the only place where its parts meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app import failures
from app.admission import Admission
from app.api import health, models, pages, tasks
from app.body import Budget
from app.fetch import Fetch
from app.media import Media
from app.parts import Parts
from app.problems import Problem
from app.settings import Settings
from app.telemetry.envelope import Envelope
from app.telemetry.metrics import Metrics
from app.triton.canary import Canaries
from app.triton.catalog import Catalog
from app.triton.client import TritonClient

TITLE = "Triton Gateway"
VERSION = "0.1.0"
DESCRIPTION = "Image classification, object detection and sentiment by models on NVIDIA Triton."


def create_app(settings: Settings) -> FastAPI:
    """Return the gateway as an ASGI application. Nothing is connected before its lifespan begins."""
    budget = Budget(settings.max_bytes_in_flight)
    fetch = Fetch(settings)
    client = TritonClient(settings.triton_target)
    catalog = Catalog(client)
    parts = Parts(
        settings=settings,
        client=client,
        catalog=catalog,
        canaries=Canaries(client, catalog),
        admission=Admission(settings.max_items_per_model),
        media=Media(settings, fetch),
        budget=budget,
        metrics=Metrics(budget),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        client.open()
        reading = asyncio.create_task(catalog.keep_reading())
        try:
            yield
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            await fetch.close()
            await client.close()

    app = FastAPI(title=TITLE, version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Envelope, metrics=parts.metrics)
    failures.add_to(app)
    for routes in (tasks.router(parts), models.router(parts), health.router(parts)):
        app.include_router(routes)
    pages.add_to(app)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the one answer that no route declares as its own: the problem."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        # FastAPI's own shape of validation errors: this gateway answers problems instead.
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema
