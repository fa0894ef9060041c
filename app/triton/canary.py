"""Readiness by real inferences: every default model must give its expected answer.

A canary runs when readiness is asked for, at most once a second, so that nothing is spent while nobody asks. A Python
step of which one of two instances has died answers every second canary correctly: an answer `is not healthy` to anyone
therefore counts against the model for a while, whatever the canary says. A task that had a default model and has
none is not ready either, however long ago that was: its callers get no answer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from dataclasses import dataclass

from PIL import Image

from app.errors import GatewayError
from app.tasks import TASKS
from app.tasks.base import texts
from app.triton.catalog import Catalog, ServedModel
from app.triton.client import TritonClient

FRESH_S = 1.0
TIMEOUT_S = 5.0
DEAD_STEP_COUNTS_S = 3.0


@dataclass(frozen=True)
class Health:
    """Whether one default model answers as it must, and why not."""

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
    """Asks every default model for its expected answer."""

    def __init__(self, client: TritonClient, catalog: Catalog) -> None:
        self._client = client
        self._catalog = catalog
        self._last: Readiness | None = None
        self._last_at = 0.0
        self._lock = asyncio.Lock()

    async def readiness(self) -> Readiness:
        """Return the readiness of at most a second ago."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            if self._last is None or loop.time() - self._last_at > FRESH_S:
                self._last = await self._ask_all()
                self._last_at = loop.time()
            return self._last

    async def _ask_all(self) -> Readiness:
        if not self._catalog.read:
            return Readiness(False, "Triton has not been reached yet.", ())
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
            return "Triton serves no default model."
        for task in TASKS:
            names = [one.model for one in health if one.task == task.name]
            if len(names) > 1:
                return f"More than one default model for {task.name}: {', '.join(names)}."
        failing = [one.model for one in health if not one.ready]
        return f"Not ready: {', '.join(failing)}." if failing else None

    async def _ask(self, model: ServedModel) -> Health:
        reason = model.fault or await self._failure(model)
        return Health(model.name, model.task.name, not reason, reason or None)

    async def _failure(self, model: ServedModel) -> str:
        """Return what is wrong with the model's answer; empty when nothing is."""
        try:
            answer = await self._client.infer(
                model.name, None, canary_item(model), model.task.outputs, {}, "canary", TIMEOUT_S
            )
        except GatewayError as error:
            return error.detail
        seen = self._client.dead_steps.get(model.name)
        if seen is not None and asyncio.get_running_loop().time() - seen < DEAD_STEP_COUNTS_S:
            return "A step of the model has died and is being repaired."
        expected = (model.canary or {}).get("label")
        labels = texts(answer.tensors["label"])[:1]
        if expected is None or labels == [expected]:
            return ""
        return f"The canary must answer '{expected}' and answered '{labels[0] if labels else ''}'."


def canary_item(model: ServedModel) -> tuple[str, bytes]:
    """Return the model's canary input, or a neutral one of the task's kind when it names none."""
    given = (model.canary or {}).get(model.task.input)
    if model.task.input == "text":
        return "text", (given or "canary").encode()
    try:
        return "image", base64.b64decode(given or "", validate=True) or _grey()
    except binascii.Error:
        return "image", _grey()


def _grey() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(buffer, "PNG")
    return buffer.getvalue()
