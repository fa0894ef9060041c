"""Callers: each sends its next request as soon as the last is answered, over one gRPC channel.

The load is closed, so its latency grows with the callers: concurrent calls = throughput x latency (Little's law).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import grpc
import grpc.aio
import numpy as np

from modelctl.embedded import processes
from modelctl.errors import CommandError

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CALLERS, TIMEOUT_S = 8, 60
LOOK_S = 0.1
OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


@dataclass(frozen=True)
class Cores:
    """Busy cores, or processor seconds: of the server with its steps, of the load generator, of everything else.

    Everything else is the other programs of this machine, and the time that its hypervisor gave to other machines. It
    shows that a measurement was disturbed.
    """

    server: float = 0.0
    client: float = 0.0
    others: float = 0.0

    @classmethod
    def now(cls, group: int) -> Cores:
        """Return the processor seconds so far; `group` is the server's process group."""
        server, client = processes.processor_seconds(group), time.process_time()
        return cls(server, client, processes.machine_seconds() - server - client)

    def since(self, before: Cores, seconds: float) -> Cores:
        """Return the cores that were busy on average since `before`, that many seconds ago."""
        return Cores(
            (self.server - before.server) / seconds,
            (self.client - before.client) / seconds,
            max(0.0, (self.others - before.others) / seconds),
        )


@dataclass(frozen=True)
class Answered:
    """The calls that ended in a window of time.

    Attributes:
        seconds: how long the window was.
        latencies: of each call, in milliseconds.
        cores: busy cores in the window, on average.

    """

    seconds: float
    latencies: Sequence[float]
    cores: Cores

    @property
    def throughput(self) -> float:
        """Inferences a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Return a percentile of the latencies, in milliseconds."""
        return float(np.percentile(self.latencies, percent))


@dataclass(frozen=True)
class Load:
    """A load: `callers` concurrent calls, for `warm_up` seconds that do not count, then for `seconds` that do."""

    callers: int
    seconds: float
    warm_up: float = 1.0

    def run(self, target: str, requests: Sequence[bytes], group: int, stopping: threading.Event) -> Answered:
        """Send requests, given as serialized ModelInferRequests, in turn; `group` is the server's process group.

        When `stopping` is set, the calls in progress are cancelled, and the calls answered so far are returned.

        Raises:
            CommandError: when a call fails, or when none was answered.

        """
        try:
            answered = asyncio.run(self._run(target, requests, group, stopping))
        except grpc.aio.AioRpcError as error:
            raise CommandError(f"Triton failed under load: {error.details() or error.code()}") from error
        if not answered.latencies and not stopping.is_set():
            raise CommandError(f"No call was answered in {self.seconds:g} s: give a higher --seconds.")
        return answered

    async def _run(self, target: str, requests: Sequence[bytes], group: int, stopping: threading.Event) -> Answered:
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

            measured = asyncio.create_task(cores(group, begin, end))
            work: asyncio.Future[Any] = asyncio.gather(*map(caller, range(self.callers)), measured)
            while not work.done():
                await asyncio.wait([work], timeout=LOOK_S)
                if stopping.is_set():
                    work.cancel()
                    with suppress(asyncio.CancelledError):
                        await work
                    return Answered(self.seconds, latencies, Cores())
            await work  # raises a caller's exception
            return Answered(self.seconds, latencies, measured.result())


async def cores(group: int, begin: float, end: float) -> Cores:
    """Return the cores that are busy on average between two times of `perf_counter`."""
    await asyncio.sleep(begin - time.perf_counter())
    begun, before = time.perf_counter(), Cores.now(group)
    await asyncio.sleep(end - time.perf_counter())
    return Cores.now(group).since(before, time.perf_counter() - begun)
