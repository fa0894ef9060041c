"""Routes for probes and Prometheus. Liveness needs the process alone, readiness an answer of each default model."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.api.parts import Parts


class Alive(BaseModel):
    """The process runs."""

    status: Literal["alive"] = "alive"


class ModelHealth(BaseModel):
    """Whether a default model gives its expected answer."""

    model: str
    task: str
    ready: bool
    reason: str | None = None


class Ready(BaseModel):
    """Whether the default models give their expected answers."""

    status: Literal["ready", "not_ready"]
    reason: str | None = None
    models: list[ModelHealth]


NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Ready, "description": "Not ready, and why."}}


def router(parts: Parts) -> APIRouter:
    """Return the routes for probes and for Prometheus."""
    routes = APIRouter(tags=["health"])

    @routes.get("/livez", summary="Is the process alive?")
    async def livez() -> Alive:
        return Alive()

    async def readyz(response: Response) -> Ready:
        readiness = await parts.canaries.readiness()
        response.status_code = 200 if readiness.ready else 503
        return Ready(
            status="ready" if readiness.ready else "not_ready",
            reason=readiness.reason,
            models=[ModelHealth(**vars(health)) for health in readiness.models],
        )

    for path in ("/readyz", "/healthz", "/health"):
        routes.add_api_route(
            path,
            readyz,
            summary="Do all default models answer?",
            response_model=Ready,
            response_model_exclude_none=True,
            responses=NOT_READY,
        )

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(await parts.metrics.text(), media_type=parts.metrics.content_type)

    return routes
