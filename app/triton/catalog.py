"""Which models are served: Triton's repository index and its models' configurations -> one catalogue.

Every server is read every few seconds, so that a model which is loaded or removed is noticed without a restart.
Servers may serve different models. A model that vanishes is remembered for a while: it may be on its way back.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import structlog

from app.errors import (
    BackendUnavailableError,
    GatewayError,
    ModelNotFoundError,
    ModelNotReadyError,
    RestrictedError,
)
from app.tasks.base import Task
from app.triton.client import TritonClient
from app.triton.served import ServedModel, served_model
from app.triton.servers import Servers

REFRESH_S = 2.0
REMEMBERED_S = 30.0
MAX_ATTEMPTS = 3
"""Failed readings, within a second, after which a server counts as absent: a busy server may miss the first."""
# Models without a task serve other protocols; every tenth reading looks whether one has gained a task.
OTHERS_EVERY = 10

logger = structlog.get_logger(__name__)


class Catalog:
    """The models that are served now by any server, and those that were a moment ago."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._models: dict[str, ServedModel] = {}
        """The served models, sorted by name."""
        self._defaults: dict[str, ServedModel] = {}
        """The default model of each task that has one; the first by name where a task has several."""
        self._vanished: dict[str, tuple[ServedModel, float]] = {}
        """Models that have vanished, with the time by the loop's clock; sorted by name."""
        self._others: dict[str, dict[str, tuple[str, ...]]] = {}
        self._readings: dict[str, tuple[TritonClient, asyncio.Task[None]]] = {}
        self._tried: set[str] = set()
        """The addresses that have been read or count as absent."""
        self.had_default: set[str] = set()
        """The tasks that have had a default model since the gateway started."""
        self.read = False
        """Whether any Triton has been read at least once."""

    def models(self) -> list[ServedModel]:
        """Return the served models, sorted by name."""
        return list(self._models.values())

    def vanished(self) -> list[ServedModel]:
        """Return the models that have vanished within the last half minute, sorted by name."""
        self._forget()
        return [model for model, _ in self._vanished.values()]

    def find(self, task: Task, name: str | None, version: str | None = None) -> ServedModel:
        """Return the model that serves `task` under `name`, or the task's default.

        Raises:
            GatewayError: ModelNotFound, VersionNotFound, ModelNotReady, Unsupported or BackendUnavailable.

        """
        model = self._defaults.get(task.name) if name is None else self._models.get(name)
        if model is None or model.task is not task:
            raise self._absence(task, name)
        model.check(version)
        return model

    def get(self, name: str) -> ServedModel:
        """Return the model of that name, whatever its task; raises as `find` does."""
        if name in self._models:
            return self._models[name]
        raise self._absence(None, name)

    def _absence(self, task: Task | None, name: str | None) -> GatewayError:
        fits = (model for model in self.vanished() if task is None or model.task is task)
        gone = next((model for model in fits if model.name == name or (name is None and model.default)), None)
        if gone is not None:
            return ModelNotReadyError("The model was served a moment ago and is not ready now.", model=gone.name)
        if not self.read:
            return BackendUnavailableError(self._servers.restriction or "Triton has not been reached yet.")
        if name is None:
            return ModelNotFoundError(f"No model is the default for {task.name if task else 'this task'}.")
        return ModelNotFoundError(f"No model of this name serves {task.name if task else 'any task'}.", model=name)

    def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        self._vanished = {n: (m, at) for n, (m, at) in self._vanished.items() if now - at < REMEMBERED_S}

    async def wait_until_read(self, seconds: float) -> None:
        """Wait, at most `seconds`, until `keep_reading` has read every server or found it absent."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(client.address not in self._tried for client in self._servers.clients):
                    await asyncio.sleep(0.01)

    async def keep_reading(self) -> None:
        """Read every server for ever. A server that cannot be read keeps the models that it last served."""
        try:
            while True:
                clients = {client.address: client for client in self._servers.clients}
                for address in [address for address in self._readings if address not in clients]:
                    self._readings.pop(address)[1].cancel()
                    self._others.pop(address, None)
                    self._merge()
                for address, client in clients.items():
                    if address not in self._readings:
                        self._readings[address] = (client, asyncio.create_task(self._keep_reading(client)))
                await asyncio.sleep(REFRESH_S)
        finally:
            for _, task in self._readings.values():
                task.cancel()

    async def _keep_reading(self, client: TritonClient) -> None:
        reads = 0
        while client in self._servers.clients:
            was_reachable = client.reachable
            try:
                await self.refresh(client, everything=not reads % OTHERS_EVERY)
                self._tried.add(client.address)
            except RestrictedError as error:
                self._tried.add(client.address)
                client.mark_reachable(True)
                if not client.restriction:
                    logger.error("triton does not list its models", server=client.address, reason=error.detail)
                client.restriction = error.detail
            except BackendUnavailableError as error:
                if reads >= MAX_ATTEMPTS - 1:
                    self._tried.add(client.address)
                client.mark_reachable(False)
                if was_reachable:
                    logger.warning("triton cannot be read", server=client.address, reason=error.detail)
                elif not reads:
                    logger.info("waiting for triton", server=client.address, reason=error.detail)
            except GatewayError as error:  # the server is slow, or a model has just gone; it is read again soon
                logger.warning("triton was not read", server=client.address, reason=error.detail)
            except Exception:
                logger.exception("the catalogue could not be read", server=client.address)
            reads += 1
            # Look more often until Triton is there: it may be starting at the same time.
            await asyncio.sleep(REFRESH_S if client.reachable else REFRESH_S / 4)

    async def refresh(self, client: TritonClient, *, everything: bool = True) -> None:
        """Read one server once; with `everything`, also models that had no task at the last reading."""
        if not client.reachable:
            await client.read_version()
        ready: dict[str, list[str]] = {}
        for entry in await client.repository_index():
            if entry.state == "READY":
                ready.setdefault(entry.name, []).append(entry.version)
        known = {} if everything else self._others.get(client.address, {})
        found: dict[str, ServedModel] = {}
        others: dict[str, tuple[str, ...]] = {}
        for name, unsorted in ready.items():
            versions = tuple(sorted(unsorted, key=lambda version: (len(version), version)))
            if known.get(name) == versions:
                others[name] = versions
                continue
            try:
                model = served_model(await client.model_config(name), versions)
            except ModelNotReadyError:
                continue  # unloaded between the index and this call; the next reading decides
            if model is None:
                others[name] = versions
            else:
                found[name] = model
        self._others[client.address] = others
        client.models = found
        client.forget(found)
        client.restriction = ""
        client.mark_reachable(True)
        self._merge()

    def _merge(self) -> None:
        """Make one catalogue of all servers' models; of two under one name, prefer one that fits its task."""
        now = asyncio.get_running_loop().time()
        found: dict[str, ServedModel] = {}
        for client in self._servers.clients:
            for name, model in client.models.items():
                known = found.get(name)
                if known is None or (known.fault and not model.fault):
                    found[name] = model
                elif model.versions != known.versions:
                    versions = sorted({*known.versions, *model.versions}, key=lambda version: (len(version), version))
                    found[name] = replace(known, versions=tuple(versions))
        for name in sorted(self._models.keys() - found.keys()):
            self._vanished[name] = (self._models[name], now)
            logger.warning("model vanished", model=name)
        for name in sorted(found.keys() - self._models.keys()):
            self._vanished.pop(name, None)
            logger.info("model served", model=name, task=found[name].task.name, fault=found[name].fault or None)
        self._vanished = dict(sorted(self._vanished.items()))
        self._models = dict(sorted(found.items()))
        self._defaults = {}
        for model in self._models.values():
            if model.default:
                self._defaults.setdefault(model.task.name, model)
        self.had_default |= {model.task.name for model in found.values() if model.default}
        self.read = self.read or any(client.reachable for client in self._servers.clients)
