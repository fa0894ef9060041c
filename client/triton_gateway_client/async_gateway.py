"""The asynchronous client, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from triton_gateway_client import batches, tasks, wire
from triton_gateway_client.batches import Batches
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


class AsyncGateway:
    """`Gateway` for asyncio: the same arguments, calls and results. Files are read in threads."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        batches: Batches = Batches(),  # noqa: B008 - a frozen value
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._origin = wire.Origin(base_url, api_key)
        self._defaults = Defaults(timeout, retries)
        self._batches = batches
        self._http = http or httpx.AsyncClient()
        self._owns_http = http is None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._owns_http:
            await self._http.aclose()

    async def classify(
        self, image: ImageInput | None = None, *, image_url: str | None = None, **options: Unpack[ClassifyOptions]
    ) -> Classification:
        """Classify an image, or one that the gateway fetches from `image_url`; raises GatewayError."""
        return await self._run(tasks.one(self._defaults, CLASSIFY, image, image_url, options))

    async def detect(
        self, image: ImageInput | None = None, *, image_url: str | None = None, **options: Unpack[DetectOptions]
    ) -> Detections:
        """Detect objects in an image, or in one that the gateway fetches from `image_url`; raises GatewayError."""
        return await self._run(tasks.one(self._defaults, DETECT, image, image_url, options))

    async def sentiment(self, text: str, **options: Unpack[Options]) -> Sentiment:
        """Read the sentiment of a text; raises GatewayError."""
        return await self._run(tasks.one(self._defaults, SENTIMENT, text, None, options))

    async def classify_many(
        self, images: Iterable[ImageInput], **options: Unpack[ClassifyBatchOptions]
    ) -> list[Classification | GatewayError]:
        """Classify images: for each, in order, its result or its error. They are read as they are needed."""
        return await self._run_all(CLASSIFY, images, options)

    async def detect_many(
        self, images: Iterable[ImageInput], **options: Unpack[DetectBatchOptions]
    ) -> list[Detections | GatewayError]:
        """Detect objects in images: for each, in order, its result or its error. They are read as they are needed."""
        return await self._run_all(DETECT, images, options)

    async def sentiment_many(
        self, texts: Iterable[str], **options: Unpack[BatchOptions]
    ) -> list[Sentiment | GatewayError]:
        """Read the sentiment of texts: for each, in order, its result or its error."""
        return await self._run_all(SENTIMENT, texts, options)

    async def models(self) -> list[Model]:
        """Return the catalogue."""
        return await self._run(tasks.models(self._defaults))

    async def model(self, name: str) -> Model:
        """Return one model of the catalogue; raises NotFoundError when there is none of that name."""
        return await self._run(tasks.model(self._defaults, name))

    async def health(self) -> Health:
        """Return whether the default models give their expected answers; raises GatewayError when it cannot be told."""
        return await self._run(tasks.health(Deadline(tasks.PROBE_TIMEOUT_S)))

    async def ready(self) -> bool:
        """Return whether the gateway is there, and its default models give their expected answers."""
        return await self._run(tasks.ready())

    async def wait_until_ready(self, timeout: float = 60.0) -> Health:
        """Wait until the gateway is ready; raises DeadlineExceededError after `timeout` seconds, with the reason."""
        return await self._run(tasks.wait_until_ready(timeout))

    async def _run(self, steps: Steps[T]) -> T:
        result: object = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            result = await self._do(step)

    async def _do(self, step: Send | Wait | Work) -> object:
        match step:
            case Send():
                return await self._send(step)
            case Work():
                return await asyncio.to_thread(step.call)
            case Wait():
                await asyncio.sleep(step.seconds)
                return None

    async def _send(self, send: Send) -> Reply | GatewayError:
        try:
            async with asyncio.timeout(send.deadline.left()):
                response = await self._http.send(self._origin.request(self._http, send))
        except TimeoutError:
            return late(send.request)
        except httpx.RequestError as error:
            return wire.failure(error, send)
        return wire.reply(response, response.content)

    async def _run_all(self, task: Task[R], items: Iterable[Any], options: BatchOptions) -> list[R | GatewayError]:
        jobs = batches.jobs(self._defaults, task, self._batches, items, options)
        done: dict[int, list[R | GatewayError]] = {}
        turn = asyncio.Lock()

        async def work() -> None:
            while True:
                async with turn:
                    job = await asyncio.to_thread(next, jobs, None)
                if job is None:
                    return
                done[job.number] = await self._run(job.steps)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._batches.at_once):
                    group.create_task(work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # as the synchronous client raises it
        return batches.joined(done)
