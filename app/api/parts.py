"""The parts of one gateway, put together by `app.main` and handed to the routes."""

from __future__ import annotations

from dataclasses import dataclass

from app.drawing.pool import Drawing
from app.http.media import Media
from app.memory import Budget
from app.scheduling.admission import Admission
from app.scheduling.coalescing import Coalescer
from app.settings import Settings
from app.telemetry.metrics import Metrics
from app.triton.canary import Canaries
from app.triton.catalog import Catalog


@dataclass(frozen=True)
class Parts:
    """The parts that routes call."""

    settings: Settings
    coalescer: Coalescer
    catalog: Catalog
    canaries: Canaries
    admission: Admission
    media: Media
    drawing: Drawing
    budget: Budget
    metrics: Metrics
