"""Counters, gauges and latency histograms for Prometheus.

Labels take values from closed sets only (routes, models of the catalogue, codes, servers), so that no caller can grow
them. With several workers, each writes its values into files (`app.telemetry.worker_files`), and the worker that is
scraped answers the sum over all (prometheus_client's multiprocess mode).
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app.context import Context
from app.telemetry.worker_files import FOLDER, reading

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
MAX_READINGS, RETRY_S = 50, 0.001
"""A worker creates an empty file and fills it a moment later; a scrape that finds an empty file reads again."""


class Metrics:
    """The metrics of one gateway."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._scrape = asyncio.Lock()
        """Lets one scrape at a time read the workers' files."""
        self._requests = self._counter(
            "gateway_requests",
            "Requests answered, by route, model, HTTP status (499: the client left) and problem code.",
            "route",
            "model",
            "status",
            "code",
        )
        self._seconds = self._histogram(
            "gateway_request_seconds", "Time from a request's first byte to the end of its answer.", "route"
        )
        self._spans = self._histogram(
            "gateway_span_seconds", "Time of requests by phase: read, wait, triton, encode.", "span"
        )
        self._items = self._counter("gateway_batch_items", "Items of batches, by problem code.", "code")
        self.running = self._gauge("gateway_requests_running", "Requests being answered now.")
        self._tasks = self._gauge("gateway_tasks", "Tasks of the event loop.")
        self.body_bytes = self._gauge(
            "gateway_body_bytes", "Bytes held now: request bodies, and answers that clients have not read yet."
        )
        self.with_triton = self._gauge("gateway_items_with_triton", "Items that hold a slot now.", "model")
        self.waiting = self._gauge("gateway_items_waiting", "Items that wait for a slot now.", "model")
        self.limit = self._gauge("gateway_items_limit", "Slots of the model: its concurrency limit.", "model")
        self._calls = self._counter(
            "gateway_triton_calls", "Inferences, by server and gRPC status.", "server", "status"
        )
        self.retries = self._counter(
            "gateway_triton_retries", "Retried inferences, by the server that failed.", "server"
        )
        self.running_calls = self._gauge("gateway_triton_calls_running", "Inferences running now.", "server")
        # Looking a child up by its labels costs more than counting.
        self._request: Callable[..., Counter] = cache(self._requests.labels)
        self._second: Callable[..., Histogram] = cache(self._seconds.labels)
        self._span: Callable[..., Histogram] = cache(self._spans.labels)
        self.call: Callable[..., Counter] = cache(self._calls.labels)
        self.up = self._gauge("gateway_triton_up", "1 while the server answers.", "server", over_workers="livemin")
        self.unfit = self._gauge(
            "gateway_triton_unfit",
            "1 while the gateway avoids this server for the model, because its calls there fail.",
            "server",
            "model",
            over_workers="livemax",
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=BUCKETS_S, registry=self._registry)

    def _gauge(
        self, name: str, text: str, *labels: str, over_workers: Literal["livesum", "livemin", "livemax"] = "livesum"
    ) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode=over_workers)

    def observe(self, route: str, status: int, context: Context, seconds: float) -> None:
        """Count one answered request."""
        self._request(route, context.model, status, context.code).inc()
        self._second(route).observe(seconds)
        for name, span in context.spans.items():
            self._span(name).observe(span)

    def count_item(self, code: str) -> None:
        """Count one item of a batch; `code` is empty when it got a result."""
        self._items.labels(code).inc()

    @staticmethod
    def forget(gauge: Gauge, *labels: str) -> None:
        """Drop the value of something that is gone. With several workers values cannot be dropped: it becomes 0."""
        if FOLDER in os.environ:
            gauge.labels(*labels).set(0)
        else:
            gauge.remove(*labels)

    async def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self._tasks.set(len(asyncio.all_tasks()))
        folder = os.environ.get(FOLDER)
        if folder is None:
            return generate_latest(self._registry)
        left = MAX_READINGS
        async with self._scrape:
            while True:
                try:
                    return await asyncio.to_thread(_text_of_all_workers, Path(folder))
                except (FileNotFoundError, struct.error):
                    # Another worker has just made a file and not filled it yet.
                    left -= 1
                    if not left:
                        raise
                    await asyncio.sleep(RETRY_S)


def _text_of_all_workers(folder: Path) -> bytes:
    """Return the metrics of all workers; called in a thread, because it may wait for a merge."""
    registry = CollectorRegistry()
    with reading(folder):
        multiprocess.MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
        return generate_latest(registry)
