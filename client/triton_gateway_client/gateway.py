"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Lock
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from triton_gateway_client import batches, network, tasks, wire
from triton_gateway_client.batches import Batches, Job
from triton_gateway_client.errors import GatewayError
from triton_gateway_client.exchange import Deadline, Reply, Send, Steps, Wait, Work, late
from triton_gateway_client.images import ImageInput
from triton_gateway_client.results import Classification, Detections, Health, Model, Sentiment
from triton_gateway_client.tasks import (
    CLASSIFY,
    DETECT,
    SENTIMENT,
    BatchOptions,
    ClassifyBatchOptions,
    ClassifyOptions,
    Defaults,
    DetectBatchOptions,
    DetectOptions,
    Options,
    R,
    Task,
)

T = TypeVar("T")


class Gateway:
    """A client of one gateway; threads may share it. A context manager, which closes its connections.

    Args:
        base_url: where the gateway is, `https://host/prefix` for instance.
        api_key: sent as `Authorization: Bearer`, where the gateway asks for one; visible ASCII characters.
        timeout: seconds for everything that one call does, its retries included.
        retries: how often a call is tried again that failed but may succeed.
        batches: how the `..._many` calls split their items.
        http: sends the requests, instead of a client of its own; it is left open. It bounds each wait, not their sum.

    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        batches: Batches = Batches(),  # noqa: B008 - a frozen value
        http: httpx.Client | None = None,
    ) -> None:
        self._origin = wire.Origin(base_url, api_key)
        self._defaults = Defaults(timeout, retries)
        self._batches = batches
        self._http = http or network.client(base_url)
        self._owns_http = http is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._http.close()

    def classify(
        self, image: ImageInput | None = None, *, image_url: str | None = None, **options: Unpack[ClassifyOptions]
    ) -> Classification:
        """Classify an image, or one that the gateway fetches from `image_url`; raises GatewayError."""
        return self._run(tasks.one(self._defaults, CLASSIFY, image, image_url, options))

    def detect(
        self, image: ImageInput | None = None, *, image_url: str | None = None, **options: Unpack[DetectOptions]
    ) -> Detections:
        """Detect objects in an image, or in one that the gateway fetches from `image_url`; raises GatewayError."""
        return self._run(tasks.one(self._defaults, DETECT, image, image_url, options))

    def sentiment(self, text: str, **options: Unpack[Options]) -> Sentiment:
        """Read the sentiment of a text; raises GatewayError."""
        return self._run(tasks.one(self._defaults, SENTIMENT, text, None, options))

    def classify_many(
        self, images: Iterable[ImageInput], **options: Unpack[ClassifyBatchOptions]
    ) -> list[Classification | GatewayError]:
        """Classify images: for each, in order, its result or its error. They are read as they are needed."""
        return self._run_all(CLASSIFY, images, options)

    def detect_many(
        self, images: Iterable[ImageInput], **options: Unpack[DetectBatchOptions]
    ) -> list[Detections | GatewayError]:
        """Detect objects in images: for each, in order, its result or its error. They are read as they are needed."""
        return self._run_all(DETECT, images, options)

    def sentiment_many(self, texts: Iterable[str], **options: Unpack[BatchOptions]) -> list[Sentiment | GatewayError]:
        """Read the sentiment of texts: for each, in order, its result or its error."""
        return self._run_all(SENTIMENT, texts, options)

    def models(self) -> list[Model]:
        """Return the catalogue."""
        return self._run(tasks.models(self._defaults))

    def model(self, name: str) -> Model:
        """Return one model of the catalogue; raises NotFoundError when there is none of that name."""
        return self._run(tasks.model(self._defaults, name))

    def health(self) -> Health:
        """Return whether the default models give their expected answers; raises GatewayError when it cannot be told."""
        return self._run(tasks.health(Deadline(tasks.PROBE_TIMEOUT_S)))

    def ready(self) -> bool:
        """Return whether the gateway is there, and its default models give their expected answers."""
        return self._run(tasks.ready())

    def wait_until_ready(self, timeout: float = 60.0) -> Health:
        """Wait until the gateway is ready; raises DeadlineExceededError after `timeout` seconds, with the reason."""
        return self._run(tasks.wait_until_ready(timeout))

    def _run(self, steps: Steps[T]) -> T:
        result: object = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            result = self._do(step)

    def _do(self, step: Send | Wait | Work) -> object:
        match step:
            case Send():
                return self._send(step)
            case Work():
                return step.call()
            case Wait():
                time.sleep(step.seconds)
                return None

    def _send(self, send: Send) -> Reply | GatewayError:
        try:
            response = self._http.send(self._origin.request(self._http, send), stream=True)
            with closing(response):
                chunks = []
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    if send.deadline.left() <= 0:
                        return late(send.request)
        except httpx.RequestError as error:
            return wire.failure(error, send)
        return wire.reply(response, b"".join(chunks))

    def _run_all(self, task: Task[R], items: Iterable[Any], options: BatchOptions) -> list[R | GatewayError]:
        jobs = batches.jobs(self._defaults, task, self._batches, items, options)
        done: dict[int, list[R | GatewayError]] = {}
        turn = Lock()

        def work() -> None:
            while (job := _next(jobs, turn)) is not None:
                done[job.number] = self._run(job.steps)

        with ThreadPoolExecutor(self._batches.at_once) as pool:
            workers = [pool.submit(work) for _ in range(self._batches.at_once)]
            try:
                for worker in workers:
                    worker.result()
            except BaseException:  # Ctrl-C too: begin no other batch
                with turn:
                    jobs.close()
                raise
        return batches.joined(done)


def _next(jobs: Iterator[Job[R]], turn: Lock) -> Job[R] | None:
    with turn:
        return next(jobs, None)
