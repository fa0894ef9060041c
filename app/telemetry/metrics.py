"""Counters and latency histograms for Prometheus.

Labels take values from closed sets only (routes, models of the catalogue, codes), so that no caller can grow them.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app.body import Budget
from app.telemetry.timing import Context

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one gateway."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, budget: Budget) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "gateway_requests",
            "Requests answered, by route, model, HTTP status and problem code.",
            ("route", "model", "status", "code"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "gateway_request_seconds",
            "Time from a request's first byte to the end of its answer.",
            ("route",),
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._spans = Histogram(
            "gateway_span_seconds",
            "Where the time of requests went: read, wait, triton, encode.",
            ("span",),
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self.running = Gauge("gateway_requests_running", "Requests being answered now.", registry=self._registry)
        self._items = Counter(
            "gateway_batch_items", "Items of batches, by problem code.", ("code",), registry=self._registry
        )
        held = Gauge("gateway_body_bytes", "Bytes of request bodies held now.", registry=self._registry)
        held.set_function(lambda: budget.held)

    def observe(self, route: str, status: int, context: Context, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(route, context.model, status, context.code).inc()
        self._seconds.labels(route).observe(seconds)
        for name, span in context.spans.items():
            self._spans.labels(name).observe(span)

    def count_item(self, code: str) -> None:
        """Count one item of a batch; `code` is empty when it got a result."""
        self._items.labels(code).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
