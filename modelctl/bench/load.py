"""Callers: each sends its next request as soon as the last is answered.

    Transport (one request and its answer) --Load.run--> latencies of a window of time, cores that were busy meanwhile

`Grpc` calls Triton over one channel; `benchmarks.load.connections` calls the gateway over HTTP. The load is closed, so
its latency grows with the callers: calls under way = throughput x latency (Little's law).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Protocol, Self

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
    """Cores, or processor seconds.

    Attributes:
        server: of the server with its steps.
        client: of the load generator.
        others: of other programs and, through the hypervisor, of other machines: high when a measurement was disturbed.
        beside: of a second process group, such as the Triton that a gateway asks; 0 without one.

    """

    server: float = 0.0
    client: float = 0.0
    others: float = 0.0
    beside: float = 0.0

    @classmethod
    def now(cls, group: int, beside: int | None = None) -> Cores:
        """Return the processor seconds so far, of the server's process group and of a second one."""
        server, client = processes.processor_seconds(group), time.process_time()
        second = 0.0 if beside is None else processes.processor_seconds(beside)
        return cls(server, client, processes.machine_seconds() - server - client - second, second)

    def since(self, before: Cores, seconds: float) -> Cores:
        """Return the cores that were busy on average since `before`, that many seconds ago."""
        return Cores(
            (self.server - before.server) / seconds,
            (self.client - before.client) / seconds,
            max(0.0, (self.others - before.others) / seconds),
            (self.beside - before.beside) / seconds,
        )


@dataclass(frozen=True)
class Answered:
    """The calls that ended in a window of time.

    Attributes:
        seconds: length of the window.
        latencies: of each call, in milliseconds.
        cores: busy on average during the window.

    """

    seconds: float
    latencies: Sequence[float]
    cores: Cores

    @property
    def throughput(self) -> float:
        """Calls per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Return a percentile of the latencies, in milliseconds."""
        return float(np.percentile(self.latencies, percent))


class Transport(Protocol):
    """Sends requests to a server, while it is open as an asynchronous context manager.

    Opening it and `ask` raise CommandError when the server fails.
    """

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def ask(self) -> None:
        """Send the next request and wait for its answer; several callers may do so at the same time."""


class Grpc:
    """Calls to Triton over one gRPC channel."""

    def __init__(self, target: str, requests: Sequence[bytes]) -> None:
        """Send serialized ModelInferRequests, in turn, to `target`, a host:port."""
        self._target = target
        self._requests = cycle(requests)

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._target, options=OPTIONS)
        self._call = self._channel.unary_unary(METHOD)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def ask(self) -> None:
        """Make the next call; raises CommandError when it fails."""
        try:
            await self._call(next(self._requests), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise CommandError(f"Triton failed under load: {error.details() or error.code()}") from error


@dataclass(frozen=True)
class Load:
    """Number of concurrent callers, `warm_up` seconds that do not count, then `seconds` that do."""

    callers: int
    seconds: float
    warm_up: float = 1.0

    def run(
        self, transport: Transport, group: int, stopping: threading.Event, *, beside: int | None = None
    ) -> Answered:
        """Send requests; when `stopping` is set, give up the calls under way and return what was answered until then.

        Args:
            transport: sends them.
            group: the server's process group.
            stopping: ends the load.
            beside: a second process group whose cores are counted apart.

        Raises:
            CommandError: when a call fails, or when none was answered.

        """
        answered = asyncio.run(self._run(transport, (group, beside), stopping))
        if not answered.latencies and not stopping.is_set():
            raise CommandError(f"No call was answered in {self.seconds:g} s: give a higher --seconds.")
        return answered

    async def _run(self, transport: Transport, groups: tuple[int, int | None], stopping: threading.Event) -> Answered:
        async with transport:
            begin = time.perf_counter() + self.warm_up
            end = begin + self.seconds
            latencies: list[float] = []

            async def caller() -> None:
                while (begun := time.perf_counter()) < end:
                    await transport.ask()
                    done = time.perf_counter()
                    if begin <= done <= end:
                        latencies.append((done - begun) * 1e3)

            measured = asyncio.create_task(_cores(groups, begin, end))
            work: asyncio.Future[Any] = asyncio.gather(*(caller() for _ in range(self.callers)), measured)
            while not work.done():
                await asyncio.wait([work], timeout=LOOK_S)
                if stopping.is_set():
                    work.cancel()
                    with suppress(asyncio.CancelledError):
                        await work
                    return Answered(self.seconds, latencies, Cores())
            await work  # raises a caller's exception
            return Answered(self.seconds, latencies, measured.result())


async def _cores(groups: tuple[int, int | None], begin: float, end: float) -> Cores:
    """Return the cores that are busy between two moments of `perf_counter`."""
    await asyncio.sleep(begin - time.perf_counter())
    begun, before = time.perf_counter(), Cores.now(*groups)
    await asyncio.sleep(end - time.perf_counter())
    return Cores.now(*groups).since(before, time.perf_counter() - begun)
