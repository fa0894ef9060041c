"""The synchronous client: runs the steps of a call (`exchange`) in the caller's thread."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import TracebackType
from typing import Self, TypeVar

import httpx

from triton_gateway_client import network, wire
from triton_gateway_client.calls import Calls
from triton_gateway_client.errors import GatewayError
from triton_gateway_client.exchange import Parallel, Reply, Send, Steps, Wait, Work, late

T = TypeVar("T")


class Gateway(Calls[httpx.Client]):
    """A client of one gateway; threads may share it. As a context manager it closes its connections at the end.

    Args:
        base_url: the gateway's URL, such as `https://host/prefix`.
        api_key: sent as `Authorization: Bearer`, for a gateway that requires a key; visible ASCII characters.
        timeout: seconds for a whole call, its retries included.
        retries: maximum number of retries of a call that failed but may succeed.
        batches: how the `..._many` calls split their items.
        http: an HTTP client to use, which `close` leaves open (default: one of its own). With it, the timeout applies
            to each wait of a call, not to their sum.

    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._http.close()

    def _open(self) -> httpx.Client:
        return network.client()

    def _run(self, steps: Steps[T]) -> T:
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
                    result = self._send(step)
                case Work():
                    result = step.call()
                case Wait():
                    time.sleep(step.seconds)
                case Parallel():
                    self._run_parallel(step)

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

    def _run_parallel(self, parallel: Parallel) -> None:
        with ThreadPoolExecutor(len(parallel.branches)) as pool:
            running = [pool.submit(self._run, branch) for branch in parallel.branches]
            try:
                for each in running:
                    each.result()
            except BaseException:  # Ctrl-C too
                parallel.stop()
                raise
