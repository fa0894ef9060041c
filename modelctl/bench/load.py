"""Callers: each sends its next request as soon as the last is answered, over one gRPC channel.

The load is closed, so its latency grows with the callers: calls under way = throughput x latency (Little's law).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import grpc
import grpc.aio
import numpy as np

from modelctl.errors import CommandError

METHOD = "/inference.GRPCInferenceService/ModelInfer"
TIMEOUT_S = 60
LOOK_S = 0.1
OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


@dataclass(frozen=True)
class Answered:
    """The calls that ended in a window of time.

    Attributes:
        seconds: how long the window was.
        latencies: of each call, in milliseconds.
        client_cores: how many cores the load generator itself kept busy.

    """

    seconds: float
    latencies: Sequence[float]
    client_cores: float

    @property
    def throughput(self) -> float:
        """Inferences a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Return the latency, in milliseconds, that so many percent of the calls did not exceed."""
        return float(np.percentile(self.latencies, percent))


@dataclass(frozen=True)
class Load:
    """How much is asked for: `callers` at once, `warm_up` seconds that do not count, then `seconds` that do."""

    callers: int
    seconds: float
    warm_up: float = 1.0

    def run(self, target: str, requests: Sequence[bytes], stopping: threading.Event) -> Answered:
        """Send requests, given as serialized ModelInferRequests, in turn.

        When `stopping` is set, the calls under way are given up, and what was answered is returned.

        Raises:
            CommandError: when a call fails, or when none was answered.

        """
        try:
            answered = asyncio.run(self._run(target, requests, stopping))
        except grpc.aio.AioRpcError as error:
            raise CommandError(f"Triton failed under load: {error.details() or error.code()}") from error
        if not answered.latencies and not stopping.is_set():
            raise CommandError(f"No call was answered in {self.seconds:g} s: give more by --seconds.")
        return answered

    async def _run(self, target: str, requests: Sequence[bytes], stopping: threading.Event) -> Answered:
        async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
            call = channel.unary_unary(METHOD)
            begin = time.perf_counter() + self.warm_up
            end = begin + self.seconds
            latencies: list[float] = []

            async def caller(number: int) -> None:
                for request in islice(cycle(requests), number % len(requests), None):
                    begun = time.perf_counter()
                    if begun >= end:
                        return
                    await call(request, timeout=TIMEOUT_S)
                    done = time.perf_counter()
                    if begin <= done <= end:
                        latencies.append((done - begun) * 1e3)

            processor = asyncio.create_task(_processor_time(begin, end))
            work: asyncio.Future[Any] = asyncio.gather(*map(caller, range(self.callers)), processor)
            while not work.done():
                await asyncio.wait([work], timeout=LOOK_S)
                if stopping.is_set():
                    work.cancel()
                    return Answered(self.seconds, latencies, 0.0)
            await work  # raises what a caller has raised
            return Answered(self.seconds, latencies, processor.result() / self.seconds)


async def _processor_time(begin: float, end: float) -> float:
    """Return the processor seconds that this process takes between two moments of `perf_counter`."""
    await asyncio.sleep(begin - time.perf_counter())
    before = time.process_time()
    await asyncio.sleep(end - time.perf_counter())
    return time.process_time() - before
