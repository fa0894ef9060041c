"""One Triton: its gRPC channel, the calls over it, and what they show about its health and speed.

The generated stub is used directly, because tritonclient's wrapper copies every tensor through numpy in both
directions. `app.triton.messages` makes and reads the messages; `app.triton.servers` chooses the Triton.
"""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import structlog
from tritonclient.grpc import service_pb2, service_pb2_grpc

from app.errors import BackendError, BackendUnavailableError, GatewayError, ModelNotReadyError, RestrictedError
from app.telemetry.metrics import Metrics
from app.triton.control import ControlKey
from app.triton.messages import read_outputs, request_message
from app.triton.question import Answer, Question
from app.triton.served import ServedModel
from app.triton.status import gateway_error, is_dead_step

# Servers before 25.06 crash on calls that are cancelled within milliseconds, so every call gets at least this long.
MIN_TIMEOUT_S = 0.05
CANCELS_SINCE = (2, 59)
"""The server version (release 25.06) since which a cancelled call does no harm."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # The default back-off takes ten seconds to notice that a restarted server is there again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # app.triton.servers retries, because it can choose another server.
    ("grpc.enable_retries", 0),
    # A connection for each channel: by default two channels to one address share one, and its failures.
    ("grpc.use_local_subchannel_pool", 1),
    # By default only TCP notices that a host has vanished, after a quarter of an hour. With the first two options it
    # takes 6 s, because gRPC hands the timeout on to TCP. A server that hangs is noticed after 15 s, by a ping without
    # an answer; grpcio 1.85 reads the third option for that, and would wait for a minute without it.
    # A Triton that `modelctl serve` starts accepts a ping every 5 s. Others accept one in five minutes and close the
    # connection at the third early one (GOAWAY, too_many_pings). gRPC's defaults stay below that, and are kept: no
    # pings without a call, and two at most while the client sends nothing else (grpc/doc/keepalive.md).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # Triton is reached directly, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
)
MAX_FAILURES, FAILURE_S = 3, 1.0
"""Failures in a row after which a model is unfit on this server, and the latency that each of them counts as."""
WEIGHT = 0.3
"""The weight of the newest call in the moving average of latencies."""

logger = structlog.get_logger(__name__)


class TritonClient:
    """Calls one Triton. Failures are raised as `GatewayError`.

    Attributes:
        address: host:port.
        models: the models that it serves, by name; set by the catalogue.
        reachable: whether it answered the last reading or call.
        cancels: whether it survives calls that are cancelled.
        outstanding: inferences that have no answer yet.
        dead_steps: when a step of a model was last found dead, by `time.monotonic`.
        unfit: why a model that it serves fails, by model, until its canary is answered again.
        answered: when each model last answered, by `time.monotonic`.
        restriction: why it answers but does not list its models; empty when it lists them.
        item_s: estimated seconds per item, by model: a call's latency divided by its items and the calls beside it.

    """

    def __init__(self, address: str, metrics: Metrics, key_file: str = "") -> None:
        self.address = address
        self._key = ControlKey(key_file)
        self._metrics = metrics
        self._up = metrics.up.labels(address)
        self._running_calls = metrics.running_calls.labels(address)
        self.models: dict[str, ServedModel] = {}
        self.reachable = False
        self.restriction = ""
        self.cancels = False
        self.outstanding = 0
        self.dead_steps: dict[str, float] = {}
        self.unfit: dict[str, str] = {}
        self.answered: dict[str, float] = {}
        self.item_s: dict[str, float] = {}
        self._latencies: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._running: defaultdict[str, dict[object, float]] = defaultdict(dict)
        self._channel: Any = None
        self._stub: Any = None

    def open(self) -> None:
        """Make the channel, which connects and reconnects by itself. Called in the loop that will use it."""
        self._channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    def mark_reachable(self, reachable: bool) -> None:
        """Note whether the server answers."""
        self.reachable = reachable
        self._up.set(reachable)

    def mark_unfit(self, model: str, reason: str) -> None:
        """Note why a model fails on this server; an empty reason means that it works again."""
        if reason:
            self.unfit[model] = reason
        else:
            self.unfit.pop(model, None)
        self._metrics.unfit.labels(self.address, model).set(bool(reason))

    def forget(self, models: Collection[str]) -> None:
        """Drop what is known about other models than these."""
        for model in [model for model in self.unfit if model not in models]:
            self.mark_unfit(model, "")
            self._metrics.forget(self._metrics.unfit, self.address, model)
        for known in (self._latencies, self._failures, self.answered, self.item_s, self.dead_steps):
            for model in [model for model in known if model not in models]:
                del known[model]

    def expected_s(self, model: str) -> float:
        """Return the expected seconds of a call of `model`, behind the calls under way; 0 when unknown.

        A running call counts with its age, so that a server that has become slow is noticed before it answers (as in
        Finagle's Peak EWMA).
        """
        running = self._running.get(model)
        oldest = time.perf_counter() - next(iter(running.values())) if running else 0.0
        return max(self._latencies.get(model, 0.0), oldest) * (self.outstanding + 1)

    async def infer(self, question: Question) -> Answer:
        """Send one call and return its answer. The call ends by itself at its deadline, but lasts at least 50 ms.

        Where `cancels` is false the call must not be cancelled, and goes on for the question's `late_s`.

        Raises:
            GatewayError: whatever went wrong, by the table of `app.triton.status`.

        """
        model = question.model.name
        metadata = (("traceparent", question.traceparent),) if question.traceparent else None
        begun = time.perf_counter()
        timeout_s = max(question.deadline.left_s(), MIN_TIMEOUT_S)
        try:
            with self._under_way(model, begun):
                response = await self._stub.ModelInfer(
                    request_message(question, timeout_s),
                    timeout=timeout_s + (0.0 if self.cancels else question.late_s),
                    metadata=metadata,
                )
        except grpc.aio.AioRpcError as error:
            self._metrics.call(self.address, error.code().name).inc()
            raise self._note(question, begun, error) from error
        self._metrics.call(self.address, "OK").inc()
        self._measure(model, time.perf_counter() - begun, len(question.items))
        self._failures.pop(model, None)
        self.answered[model] = time.monotonic()
        try:
            return Answer(response.model_version, read_outputs(response))
        except (KeyError, ValueError, struct.error) as error:
            raise BackendError("The model's answer cannot be read.", model=model) from error

    @contextmanager
    def _under_way(self, model: str, begun: float) -> Iterator[None]:
        token = object()
        self._running[model][token] = begun
        self.outstanding += 1
        self._running_calls.inc()
        try:
            yield
        finally:
            self.outstanding -= 1
            del self._running[model][token]
            self._running_calls.dec()

    def _note(self, question: Question, begun: float, error: grpc.aio.AioRpcError) -> GatewayError:
        """Learn from a failure; return it as the error for the caller."""
        model, details = question.model.name, error.details() or ""
        failure = gateway_error(error.code(), details, model)
        if failure.status >= 500:
            # The full text, which the caller does not see.
            logger.warning("triton failed", server=self.address, model=model, grpc=error.code().name, details=details)
        # Only INTERNAL proves a dead step: messages of other statuses may quote a caller's input.
        if error.code() is grpc.StatusCode.INTERNAL and is_dead_step(details):
            self.dead_steps[model] = time.monotonic()
            self.mark_unfit(model, failure.detail)
        elif isinstance(failure, ModelNotReadyError):
            self.mark_unfit(model, failure.detail)
        elif isinstance(failure, BackendUnavailableError) and not isinstance(failure, RestrictedError):
            self.mark_reachable(False)
        elif isinstance(failure, BackendError) and not question.may_suffer(failure):
            # A model that fails fast must not look fast: it would attract all requests.
            self._measure(model, FAILURE_S)
            self._failures[model] = self._failures.get(model, 0) + 1
            if self._failures[model] >= MAX_FAILURES:
                self.mark_unfit(model, failure.detail)
        elif error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._measure(model, time.perf_counter() - begun)
        return failure

    def _measure(self, model: str, seconds: float, items: int = 1) -> None:
        known, item_s = self._latencies.get(model), seconds / (len(self._running[model]) + 1) / items
        # The latency of a lone call replaces the average; that of a call beside others is one of many.
        weight = WEIGHT if known and self.outstanding else 1.0
        self._latencies[model] = (1 - weight) * (known or 0.0) + weight * seconds
        self.item_s[model] = (1 - WEIGHT) * self.item_s.get(model, item_s) + WEIGHT * item_s

    async def read_version(self, timeout_s: float = 2) -> None:
        """Ask for the server's version, and set `cancels`."""
        version = (await self._ask("ServerMetadata", service_pb2.ServerMetadataRequest(), timeout_s)).version
        numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
        self.cancels = tuple(numbers) >= CANCELS_SINCE

    async def repository_index(self, timeout_s: float = 2) -> list[Any]:
        """Return an entry with `name`, `version`, `state` and `reason` for every version that Triton knows."""
        request = service_pb2.RepositoryIndexRequest()
        try:
            index = await self._ask("RepositoryIndex", request, timeout_s, self._key.metadata)
        except RestrictedError:
            if not self._key.renew():
                raise
            index = await self._ask("RepositoryIndex", request, timeout_s, self._key.metadata)
        return list(index.models)

    async def model_config(self, model: str, timeout_s: float = 2) -> Any:
        """Return the configuration of a loaded model, as Triton completed it."""
        return (await self._ask("ModelConfig", service_pb2.ModelConfigRequest(name=model), timeout_s)).config

    async def _ask(
        self, method: str, request: Any, timeout_s: float, metadata: tuple[tuple[str, str], ...] | None = None
    ) -> Any:
        try:
            return await getattr(self._stub, method)(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise gateway_error(error.code(), error.details() or "", getattr(request, "name", "")) from error
