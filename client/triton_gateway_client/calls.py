"""Every call of the gateway, written once: `Gateway` and `AsyncGateway` inherit the calls and run them differently.

    a method here -> Steps (`exchange`) -> Gateway._run, which blocks, or AsyncGateway._run, which is awaited

Each client sends with httpx's client of the same kind. To drive the asynchronous client from a thread (anyio's portal)
would not save code, because a caller's own `httpx.Client` would still need a separate path, and a call would take
2 to 3 times the CPU.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack, overload

import httpx

from triton_gateway_client import tasks, wire
from triton_gateway_client.batches import Batches, many
from triton_gateway_client.errors import GatewayError
from triton_gateway_client.exchange import Deadline, Steps
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
)

H = TypeVar("H", bound=httpx.Client | httpx.AsyncClient)
P = ParamSpec("P")
T = TypeVar("T")


class Call(Generic[P, T]):
    """Decorates a method that returns steps: `Gateway` gets one that blocks, `AsyncGateway` one to be awaited.

    Only type checkers read `__get__`. The clients hold plain functions, which `help()` and mocks need.
    """

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self._steps = steps

    def method_of(self, kind: type) -> Callable[..., Any]:
        """Return this call as a method of a client: a coroutine function where its `_run` is one."""
        steps = self._steps

        def blocking(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
            return client._run(steps(client, *args, **kwargs))

        async def awaited(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
            return await client._run(steps(client, *args, **kwargs))

        method: Any = wraps(steps)(awaited if inspect.iscoroutinefunction(kind.__dict__["_run"]) else blocking)
        signature = inspect.signature(steps)
        result = str(signature.return_annotation).removeprefix("Steps[").removesuffix("]")
        method.__signature__ = signature.replace(return_annotation=result)
        method.__annotations__ = {**steps.__annotations__, "return": result}
        method.__qualname__ = f"{kind.__qualname__}.{steps.__name__}"
        return method  # type: ignore[no-any-return]

    if TYPE_CHECKING:

        @overload
        def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, P], Any]: ...
        @overload
        def __get__(self, client: Calls[httpx.Client], owner: type) -> Callable[P, T]: ...
        @overload
        def __get__(self, client: Calls[httpx.AsyncClient], owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
        def __get__(self, client: Any, owner: Any) -> Any: ...


class Calls(ABC, Generic[H]):
    """A gateway's address, the defaults of its calls, and the calls. Subclasses send and wait."""

    def __init_subclass__(cls) -> None:
        if Calls in cls.__bases__:  # only in the two clients, not in a caller's subclass of one
            for name, call in list(vars(Calls).items()):
                if isinstance(call, Call):
                    setattr(cls, name, call.method_of(cls))

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        batches: Batches = Batches(),  # noqa: B008 - a frozen value
        http: H | None = None,
    ) -> None:
        self._origin = wire.Origin(base_url, api_key)
        self._defaults = Defaults(timeout, retries)
        self._batches = batches
        self._http: H = http or self._open()
        self._owns_http = http is None

    @abstractmethod
    def _open(self) -> H:
        """Return a new HTTP client."""

    @abstractmethod
    def _run(self, steps: Steps[T]) -> Any:
        """Run the steps of a call in order; return its result, or a coroutine that does."""

    @Call
    def classify(
        self, image: ImageInput | None = None, *, image_url: str | None = None, **options: Unpack[ClassifyOptions]
    ) -> Steps[Classification]:
        """Classify an image, or one that the gateway fetches from `image_url`; raises GatewayError."""
        return tasks.one(self._defaults, CLASSIFY, image, image_url, options)

    @Call
    def detect(
        self, image: ImageInput | None = None, *, image_url: str | None = None, **options: Unpack[DetectOptions]
    ) -> Steps[Detections]:
        """Detect objects in an image, or in one that the gateway fetches from `image_url`; raises GatewayError."""
        return tasks.one(self._defaults, DETECT, image, image_url, options)

    @Call
    def sentiment(self, text: str, **options: Unpack[Options]) -> Steps[Sentiment]:
        """Read the sentiment of a text; raises GatewayError."""
        return tasks.one(self._defaults, SENTIMENT, text, None, options)

    @Call
    def classify_many(
        self, images: Iterable[ImageInput], **options: Unpack[ClassifyBatchOptions]
    ) -> Steps[list[Classification | GatewayError]]:
        """Classify images: return each one's result or error, in order. Images are read as they are needed."""
        return many(self._defaults, CLASSIFY, self._batches, images, options)

    @Call
    def detect_many(
        self, images: Iterable[ImageInput], **options: Unpack[DetectBatchOptions]
    ) -> Steps[list[Detections | GatewayError]]:
        """Detect objects in images: return each one's result or error, in order. Images are read as they are needed."""
        return many(self._defaults, DETECT, self._batches, images, options)

    @Call
    def sentiment_many(
        self, texts: Iterable[str], **options: Unpack[BatchOptions]
    ) -> Steps[list[Sentiment | GatewayError]]:
        """Read the sentiment of texts: return each one's result or error, in order."""
        return many(self._defaults, SENTIMENT, self._batches, texts, options)

    @Call
    def models(self) -> Steps[list[Model]]:
        """Return the catalogue; raises GatewayError."""
        return tasks.models(self._defaults)

    @Call
    def model(self, name: str) -> Steps[Model]:
        """Return one model of the catalogue; raises NotFoundError when there is none of that name."""
        return tasks.model(self._defaults, name)

    @Call
    def health(self) -> Steps[Health]:
        """Return whether the default models give their expected answers; raises GatewayError without an answer."""
        return tasks.health(Deadline(tasks.PROBE_TIMEOUT_S))

    @Call
    def ready(self) -> Steps[bool]:
        """Return whether the gateway answers and its default models give their expected answers."""
        return tasks.ready()

    @Call
    def wait_until_ready(self, timeout: float = 60.0) -> Steps[Health]:
        """Wait until the gateway is ready; raises DeadlineExceededError after `timeout` seconds, with the reason."""
        return tasks.wait_until_ready(timeout)
