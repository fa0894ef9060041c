"""Put the gateway together: the only place where its parts meet."""

from __future__ import annotations

import asyncio
import gc
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api import health, models, pages, roboflow, tasks
from app.api.application import Gateway
from app.api.parts import Parts
from app.drawing.pool import Drawing
from app.http.drain import Drain
from app.http.fetch import Fetch
from app.http.media import Media
from app.http.outgoing import OUTGOING, Outgoing
from app.http.problems import Problem
from app.memory import Budget
from app.scheduling.admission import Admission
from app.scheduling.coalescing import Coalescer
from app.settings import Settings
from app.telemetry import logging
from app.telemetry.metrics import Metrics
from app.triton.canary import Canaries
from app.triton.catalog import Catalog
from app.triton.servers import Servers

TITLE = "Triton Gateway"
FIRST_READING_S = 5.0
"""Longest wait at the start for the first reading of every Triton, which takes 0.1 s, or 1 s where Triton is absent. A
Triton that hangs must not keep the gateway from its liveness probes."""
DESCRIPTION = "Image classification, object detection and sentiment by models on NVIDIA Triton."


def app() -> FastAPI:
    """Return the gateway, with its settings from the environment; called by uvicorn in each process."""
    settings = Settings()
    logging.configure(settings)
    made = create_app(settings)
    gc.freeze()  # imported modules stay, so the collector need not look through them again
    return made


def create_app(settings: Settings) -> FastAPI:
    """Return the gateway as an ASGI application. Nothing is connected before its lifespan begins."""
    drain = Drain(settings.drain_delay_s)
    metrics = Metrics()
    fetch = Fetch(settings)
    servers = Servers(settings.triton_addresses, metrics, settings.triton_control_key_file)
    catalog = Catalog(servers)
    budget = Budget(settings.max_bytes_in_flight, metrics.body_bytes)
    outgoing = Outgoing(budget, settings.write_timeout_s)
    parts = Parts(
        settings=settings,
        coalescer=Coalescer(servers, budget, enabled=settings.join_items),
        catalog=catalog,
        canaries=Canaries(servers, catalog, lambda: drain.begun),
        admission=Admission(
            settings.max_items_per_model, settings.max_queue_per_model, metrics, lambda name: len(servers.serving(name))
        ),
        media=Media(settings, fetch),
        drawing=Drawing(),
        budget=budget,
        metrics=metrics,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        await servers.open()
        running = [
            asyncio.create_task(keep())
            for keep in (
                servers.keep_resolving,
                catalog.keep_reading,
                parts.canaries.keep_probing,
                outgoing.keep_watching,
            )
        ]
        try:
            # The web server accepts nothing before this returns.
            await catalog.wait_until_read(FIRST_READING_S)
            drain.watch()
            yield {OUTGOING: outgoing}
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await parts.drawing.close()
            await fetch.close()
            await servers.close()

    app = Gateway(
        settings,
        metrics,
        drain,
        title=TITLE,
        version=version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    for routes in (tasks.router(parts), roboflow.router(parts), models.router(parts), health.router(parts)):
        app.include_router(routes)
    pages.add_to(app)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    return app


def version() -> str:
    """Return the version in pyproject.toml, its only place: the gateway runs from its folder and is never installed."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the schema of problems added, which no route declares."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        # FastAPI's own shape of validation errors: this gateway answers problems instead.
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema
