"""The asynchronous client: runs the steps of a call (`exchange`) on asyncio's event loop."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import TracebackType
from typing import Self, TypeVar

import httpx

from triton_gateway_client import wire
from triton_gateway_client.calls import Calls
from triton_gateway_client.errors import GatewayError
from triton_gateway_client.exchange import Parallel, Reply, Send, Steps, Wait, Work, late

T = TypeVar("T")


class AsyncGateway(Calls[httpx.AsyncClient]):
    """`Gateway` for asyncio: the same arguments, calls and results. Files are read in threads."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._owns_http:
            await self._http.aclose()

    def _open(self) -> httpx.AsyncClient:
        return httpx.AsyncClient()

    async def _run(self, steps: Steps[T], turn: asyncio.Lock | None = None) -> T:
        result: object = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            result = None
            match step:
                case Send():
                    result = await self._send(step)
                case Work():
                    async with turn or nullcontext():
                        result = await asyncio.to_thread(step.call)
                case Wait():
                    await asyncio.sleep(step.seconds)
                case Parallel():
                    await self._run_parallel(step)

    async def _send(self, send: Send) -> Reply | GatewayError:
        try:
            async with asyncio.timeout(send.deadline.left()):
                response = await self._http.send(self._origin.request(self._http, send))
        except TimeoutError:
            return late(send.request)
        except httpx.RequestError as error:
            return wire.failure(error, send)
        return wire.reply(response, response.content)

    async def _run_parallel(self, parallel: Parallel) -> None:
        turn = (
            asyncio.Lock()
        )  # one at a time: waiting branches could fill the thread pool that asyncio also resolves host names in
        try:
            async with asyncio.TaskGroup() as group:
                for branch in parallel.branches:
                    group.create_task(self._run(branch, turn))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the first error, as in the synchronous client
