"""Readiness by real inferences: every default model must give its expected answer, on one server at least.

A canary runs when somebody asks for readiness, at most once a second, and not where a real request has just been
answered: it costs nothing while nobody asks or all goes well. When one of a Python step's two instances has died, every
second canary is answered correctly. So an answer `is not healthy` to any request counts against the model for a while,
even if the canary succeeds. A task that once had a default model and has none now is not ready either: its callers get
no answer.

A server whose canary fails gets no more requests for that model while another server serves it; it gets a canary every
second until it answers again. Where there are several servers, idle ones get a canary now and then, so that their
latency is known.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from app.context import Deadline
from app.errors import GatewayError
from app.tasks import TASKS
from app.tasks.base import texts
from app.triton.catalog import Catalog
from app.triton.client import TritonClient
from app.triton.question import Answer, Question
from app.triton.served import ServedModel
from app.triton.servers import Servers

FRESH_S = 1.0
TIMEOUT_S = 5.0
DEAD_STEP_COUNTS_S = 3.0
IDLE_S = 5.0
"""Where several servers share a model, a server that has not answered for this long gets a canary."""

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Health:
    """Whether one default model gives its expected answer, and why not."""

    model: str
    task: str
    ready: bool
    reason: str | None = None


@dataclass(frozen=True)
class Readiness:
    """Whether the gateway can serve its default models."""

    ready: bool
    reason: str | None
    models: tuple[Health, ...]


class Canaries:
    """Sends canaries, inputs with a known answer, to the models.

    Args:
        draining: returns whether the gateway is about to stop.

    """

    def __init__(self, servers: Servers, catalog: Catalog, draining: Callable[[], bool]) -> None:
        self._servers = servers
        self._catalog = catalog
        self._draining = draining
        self._last: Readiness | None = None
        self._last_at = 0.0
        self._lock = asyncio.Lock()
        self._asking: dict[tuple[str, str], asyncio.Task[str]] = {}

    async def readiness(self) -> Readiness:
        """Return the readiness, at most a second old."""
        if self._draining():
            return Readiness(False, "The gateway is stopping.", self._last.models if self._last else ())
        async with self._lock:
            loop = asyncio.get_running_loop()
            if self._last is None or loop.time() - self._last_at > FRESH_S:
                self._last = await self._ask_all()
                self._last_at = loop.time()
            return self._last

    async def keep_probing(self) -> None:
        """Once a second, for ever: ask servers that have failed, and idle ones where there are several."""
        while True:
            await asyncio.sleep(FRESH_S)
            for client, model in self._suspects():
                self._canary(client, model)

    def _suspects(self) -> list[tuple[TritonClient, ServedModel]]:
        now = time.monotonic()
        found = []
        for client in self._servers.clients:
            for model in client.models.values() if client.reachable else ():
                others = [other for other in self._servers.serving(model.name) if other is not client]
                wanted = model.default or any(now - other.answered.get(model.name, 0) < IDLE_S for other in others)
                idle = now - client.answered.get(model.name, 0) > IDLE_S
                if model.name in client.unfit or (others and wanted and idle and not model.fault):
                    found.append((client, model))
        return found

    async def _ask_all(self) -> Readiness:
        if not self._catalog.read:
            return Readiness(False, self._servers.restriction or "Triton has not been reached yet.", ())
        models = [model for model in self._catalog.models() if model.default]
        gone = [
            Health(model.name, model.task.name, False, "It was served a moment ago and is not ready now.")
            for model in self._catalog.vanished()
            if model.default and model.task not in [one.task for one in models]
        ]
        health = (*await asyncio.gather(*(self._ask(model) for model in models)), *gone)
        missing = sorted(self._catalog.had_default - {one.task for one in health})
        ready = bool(health) and all(one.ready for one in health) and not missing
        return Readiness(ready, self._reason(health, missing), health)

    def _reason(self, health: tuple[Health, ...], missing: list[str]) -> str | None:
        if missing:
            return f"No default model for {', '.join(missing)}, which had one."
        if not health:
            return self._servers.restriction or "Triton serves no default model."
        for task in TASKS:
            names = [one.model for one in health if one.task == task.name]
            if len(names) > 1:
                return f"More than one default model for {task.name}: {', '.join(names)}."
        failing = [one.model for one in health if not one.ready]
        return f"Not ready: {', '.join(failing)}." if failing else None

    async def _ask(self, model: ServedModel) -> Health:
        """Ask every server that serves the model; one correct answer is enough."""
        reason = model.fault or "No server serves it."
        if not model.fault:
            asked = [self._canary(client, model) for client in self._servers.serving(model.name)]
            for answer in asyncio.as_completed(asked):
                reason = await answer
                if not reason:
                    break  # a server that hangs must not delay the answers of the others
        return Health(model.name, model.task.name, not reason, reason or None)

    def _canary(self, client: TritonClient, model: ServedModel) -> asyncio.Task[str]:
        """Return the running canary of a model on a server, or start one."""
        key = (client.address, model.name)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._failure(client, model))
            task.add_done_callback(lambda _: self._asking.pop(key))
        return task

    async def _failure(self, client: TritonClient, model: ServedModel) -> str:
        """Return why the model fails on this server, empty when it works; note the reason in the client."""
        now = time.monotonic()
        if model.name not in client.unfit and now - client.answered.get(model.name, -FRESH_S) < FRESH_S:
            return ""
        reason = await self._canary_failure(client, model)
        if reason:
            if model.name not in client.unfit:
                logger.warning("a canary failed", server=client.address, model=model.name, reason=reason)
        elif model.name in client.unfit:
            logger.info("a canary succeeds again", server=client.address, model=model.name)
        client.mark_unfit(model.name, reason)
        return reason

    async def _canary_failure(self, client: TritonClient, model: ServedModel) -> str:
        items = (canary_item(model),)
        question = Question(model, None, items, {}, "canary", "", Deadline.after(TIMEOUT_S), late_s=0.0)
        try:
            answer = await _infer(client, question)
        except GatewayError as error:
            return error.detail
        seen = client.dead_steps.get(model.name)
        if seen is not None and time.monotonic() - seen < DEAD_STEP_COUNTS_S:
            return "A step of the model has died and is being repaired."
        expected = (model.canary or {}).get("label")
        try:
            labels = texts(answer.tensors["label"])[:1]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            return "The model's answer cannot be read."
        if expected is None or labels == [expected]:
            return ""
        return f"The canary must answer '{expected}' and answered '{labels[0] if labels else ''}'."


async def _infer(client: TritonClient, question: Question) -> Answer:
    """Return the answer to a canary; ask again when its batch has failed, which another's item may have caused."""
    try:
        return await client.infer(question)
    except GatewayError as error:
        if not question.may_suffer(error):
            raise
    return await client.infer(replace(question, resent=True))


def canary_item(model: ServedModel) -> bytes:
    """Return the model's canary input, or a neutral one of the task's kind when it names none."""
    given = (model.canary or {}).get(model.task.input)
    if model.task.input == "text":
        return (given or "canary").encode()
    try:
        return base64.b64decode(given or "", validate=True) or _grey()
    except ValueError:  # no base64
        return _grey()


def _grey() -> bytes:
    """Return a grey PNG of 64 x 64; made by hand, because the gateway itself does not load Pillow."""
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * 64 * 3) * 64)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
