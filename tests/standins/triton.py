"""Stands in for Triton below the gateway's routes: serves the models of a test, and answers by a function of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from app.http.media import Media
from app.memory import Budget
from app.scheduling.admission import Admission
from app.scheduling.slot import Slot
from app.settings import Settings
from app.telemetry.metrics import Metrics
from app.triton.catalog import Catalog
from app.triton.question import Answer, Question
from app.triton.served import ServedModel
from app.triton.servers import Servers


def parts(send: Callable[[Question, Slot], Awaitable[Answer]], *models: ServedModel) -> Any:
    """Return what routes call, with a Triton that serves these models and answers by `send`."""
    settings = Settings()
    servers = Servers(("nowhere:1",), Metrics())
    servers.clients[0].models = {model.name: model for model in models}
    return SimpleNamespace(
        settings=settings,
        catalog=Catalog(servers),
        admission=Admission(9, 9, Metrics()),
        media=Media(settings, None),  # type: ignore[arg-type]  # fetches nothing
        budget=Budget(10_000),
        coalescer=SimpleNamespace(send=send),
        metrics=Metrics(),
    )
