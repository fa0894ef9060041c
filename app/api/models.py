"""The routes of the catalogue: which models are served now."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app import errors
from app.api.parts import Parts
from app.http import problems
from app.triton.served import ServedModel


class ModelEntry(BaseModel):
    """One model."""

    name: str
    task: str
    default: bool
    state: Literal["ready", "not_ready", "unsupported"]
    reason: str | None = None
    versions: list[str]
    steps: list[str]
    max_batch_size: int
    url: str


class ModelList(BaseModel):
    """All models that declare a task."""

    models: list[ModelEntry]


def entry(model: ServedModel, *, vanished: bool = False) -> ModelEntry:
    """Return the entry of a model."""
    state: Literal["ready", "not_ready", "unsupported"] = "unsupported" if model.fault else "ready"
    reason = model.fault or None
    if vanished:
        state, reason = "not_ready", "It was served a moment ago and is not ready now."
    return ModelEntry(
        name=model.name,
        task=model.task.name,
        default=model.default,
        state=state,
        reason=reason,
        versions=list(model.versions),
        steps=list(model.steps),
        max_batch_size=model.max_batch_size,
        url=f"/v1/{model.task.route}?model={model.name}",
    )


def router(parts: Parts) -> APIRouter:
    """Return the routes of the catalogue."""
    routes = APIRouter(prefix="/v1/models", tags=["models"])

    @routes.get("", summary="List the models", responses=problems.responses(errors.InternalError))
    async def models() -> ModelList:
        catalog = parts.catalog
        gone = [entry(model, vanished=True) for model in catalog.vanished()]
        return ModelList(models=sorted([*map(entry, catalog.models()), *gone], key=lambda model: model.name))

    @routes.get(
        "/{model}",
        summary="Show one model",
        responses=problems.responses(
            errors.ModelNotFoundError,
            errors.ModelNotReadyError,
            errors.BackendUnavailableError,
            errors.InvalidParameterError,
            errors.InternalError,
        ),
    )
    async def one(model: str) -> ModelEntry:
        return entry(parts.catalog.get(model))

    return routes
