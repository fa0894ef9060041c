"""All Triton servers: their addresses, the choice of one for each request, and the retry.

    addresses --every few seconds for a name in DNS--> one client each
    request --least loaded of those that serve the model and are fit--> client --failed connection--> another, once

gRPC connects, reconnects, keeps connections alive and reports what broke. Its load balancing does not know how many
calls a server has under way, which models it serves, or what a canary has found. So the choice is made here: the lowest
latency x calls under way, as in Finagle's Peak EWMA.
"""

from __future__ import annotations

import asyncio
import math
import socket

import structlog

from app.errors import BackendUnavailableError, GatewayError, ModelNotReadyError
from app.telemetry.metrics import Metrics
from app.triton.client import TritonClient
from app.triton.question import Answer, Question

DNS = "dns:///"
RESOLVE_S = 5.0
RETRY_SHARE = 0.1
"""Retries that each request adds to the budget. The budget keeps an outage from doubling the load."""
MAX_SAVED_RETRIES = 10.0
CLOSE_S = 1.0

logger = structlog.get_logger(__name__)


class RetryBudget:
    """The retry budget, a token bucket: a tenth of all requests, and a few saved retries."""

    def __init__(self) -> None:
        self._saved = MAX_SAVED_RETRIES

    def deposit(self) -> None:
        """Count one request."""
        self._saved = min(self._saved + RETRY_SHARE, MAX_SAVED_RETRIES)

    def withdraw(self) -> bool:
        """Take one retry; False when there is none."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class Servers:
    """The Tritons that the gateway calls.

    Args:
        addresses: host:port of each, or one `dns:///name:port` for all addresses of the name.
        metrics: counts calls and retries.
        key_file: holds the key of Triton's control protocols.

    """

    def __init__(self, addresses: tuple[str, ...], metrics: Metrics, key_file: str = "") -> None:
        self._key_file = key_file
        self._name = addresses[0].removeprefix(DNS) if addresses[0].startswith(DNS) else ""
        self._metrics = metrics
        self.clients: list[TritonClient] = []
        if not self._name:
            self.clients = [TritonClient(address, metrics, key_file) for address in dict.fromkeys(addresses)]
        self._budget = RetryBudget()
        self._turn = 0

    async def open(self) -> None:
        """Connect; called in the loop that will use the connections."""
        for client in self.clients:
            client.open()
        if self._name:
            await self._resolve()

    async def close(self) -> None:
        """Close all connections, which cancels calls; calls whose callers have gone get a moment to end."""
        loop = asyncio.get_running_loop()
        end = loop.time() + CLOSE_S
        while any(client.outstanding for client in self.clients) and loop.time() < end:
            await asyncio.sleep(0.02)
        for client in self.clients:
            await client.close()

    async def keep_resolving(self) -> None:
        """Resolve the name in DNS every few seconds, if there is one."""
        while self._name:
            await asyncio.sleep(RESOLVE_S)
            await self._resolve()

    async def _resolve(self) -> None:
        host, _, port = self._name.rpartition(":")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            logger.warning("the name of triton is not found", name=self._name, reason=str(error))
            return
        hosts = {f"[{address[0]}]" if family is socket.AF_INET6 else address[0] for family, *_, address in found}
        addresses = {f"{one}:{port}" for one in hosts}
        gone = [client for client in self.clients if client.address not in addresses]
        if not any(client.models for client in self.clients if client not in gone):
            gone = []  # the new servers have not been read yet
        known = {client.address for client in self.clients}
        for address in sorted(addresses - known):
            client = TritonClient(address, self._metrics, self._key_file)
            client.open()
            self.clients.append(client)
        self.clients = [client for client in self.clients if client not in gone]
        for client in gone:
            client.forget(())
            self._metrics.forget(self._metrics.up, client.address)
            # Its calls run on; the channel is closed after the last one.
            asyncio.create_task(_close_later(client))  # noqa: RUF006 - it ends by itself

    def serving(self, model: str, version: str | None = None) -> list[TritonClient]:
        """Return the clients of the servers that serve a model."""
        return [
            client
            for client in self.clients
            if (served := client.models.get(model)) is not None
            and not served.fault
            and (version is None or version in served.versions)
        ]

    def choose(self, model: str, version: str | None = None, avoid: TritonClient | None = None) -> TritonClient | None:
        """Return the least loaded server for a model; an unreachable or unfit one only when there is no other."""
        found = [client for client in self.serving(model, version) if client is not avoid]
        if not found:
            return None
        fit = [client for client in found if client.reachable and model not in client.unfit] or found
        # Among equals, take turns, so that new servers get their share.
        self._turn = (self._turn + 1) % len(fit)
        fit = fit[self._turn :] + fit[: self._turn]
        return min(fit, key=lambda client: (client.expected_s(model), client.outstanding))

    @property
    def restriction(self) -> str:
        """Why a server that answers does not list its models; empty when all do."""
        return next((client.restriction for client in self.clients if client.restriction), "")

    @property
    def cancel_calls(self) -> bool:
        """Whether all servers survive calls that are cancelled."""
        return all(client.cancels for client in self.clients)

    def item_s(self, model: str) -> float:
        """Return the lowest seconds per item of a model on any server; infinite when unknown."""
        return min((client.item_s.get(model, math.inf) for client in self.serving(model)), default=math.inf)

    async def infer(self, question: Question) -> Answer:
        """Ask the best server. When it is unavailable, retry once, on another server if there is one.

        Inference changes nothing, so a retry is safe. The deadline and the retry budget must allow it. It retries
        `BackendUnavailableError`, which includes a cancelled call and a missing control key, and, on another server
        only, `ModelNotReadyError`; no other error.

        Raises:
            GatewayError: whatever went wrong, by the table of `app.triton.status`.

        """
        model, version = question.model.name, question.version
        self._budget.deposit()
        client = self.choose(model, version)
        if client is None:
            raise ModelNotReadyError("The model was served a moment ago and is not ready now.", model=model)
        try:
            return await client.infer(question)
        except (BackendUnavailableError, ModelNotReadyError) as error:
            again = self._retry_at(client, error, model, version) if question.deadline.left_s() > 0 else None
            if again is None:
                raise
        self._metrics.retries.labels(client.address).inc()
        return await again.infer(question)

    def _retry_at(
        self, failed: TritonClient, error: GatewayError, model: str, version: str | None
    ) -> TritonClient | None:
        """Return the server for a retry: another one, or the same after a broken connection; None for no retry."""
        other = self.choose(model, version, avoid=failed)
        if other is None and isinstance(error, BackendUnavailableError):
            other = failed
        return other if other is not None and self._budget.withdraw() else None


async def _close_later(client: TritonClient) -> None:
    while client.outstanding:
        await asyncio.sleep(0.1)
    await client.close()
