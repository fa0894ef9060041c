"""Callers who hang up or stay: requests on raw connections, at set times."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

HOLD_S = (0.001, 0.05)
"""After so long, at least and at most, a caller hangs up."""


def post(path: str, body: bytes, kind: str = "application/json", extra: str = "") -> bytes:
    """Return a request as bytes."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def mixed(coffee: bytes, astronaut: bytes) -> list[bytes]:
    """Return requests of all kinds: single ones, batches, and for a drawn picture."""
    image = base64.b64encode(coffee).decode()
    return [
        post("/v1/classify", coffee, "image/jpeg"),
        post("/v1/detect", astronaut, "image/jpeg"),
        post("/v1/detect", astronaut, "image/jpeg", "Accept: image/jpeg\r\n"),
        post("/v1/sentiment", b'{"text": "I love it"}'),
        post("/v1/sentiment/batch", json.dumps({"texts": ["good"] * 30}).encode()),
        post("/v1/classify/batch", json.dumps({"images": [image] * 8}).encode()),
    ]


async def call(port: int, request: bytes, hold_s: float | None, *, reset: bool = False) -> bytes:
    """Send a request; hang up after a time, or stay until it is answered.

    Args:
        hold_s: how long to stay; None: to the end.
        reset: hang up with a reset instead of an ordinary end.

    Returns:
        what was answered, where the caller stayed.

    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return b""
    try:
        writer.write(request)
        if hold_s is None:
            return await reader.readuntil(b"\r\n")
        await asyncio.sleep(hold_s)
        return b""
    except (OSError, EOFError):
        return b""
    finally:
        if reset:
            writer.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER, for no time
        writer.transport.abort()


@dataclass
class Storm:
    """Many callers, of whom a few are on their way at a time or begin one after the other.

    Args:
        port: the gateway's.
        requests: what they send, by chance, some of them cut short.
        stay: whether they wait for their answers; they begin at the same times.

    """

    port: int
    requests: Sequence[bytes]
    stay: bool = False
    seed: int = 1
    answers: list[bytes] = field(default_factory=list)

    async def run(self, count: int, at_once: int = 12) -> float:
        """Let so many callers come; return the seconds until the last has gone."""
        chance, begun = random.Random(self.seed), time.monotonic()
        numbers, staying = iter(range(count)), set[asyncio.Task[bytes]]()

        async def come() -> None:
            for number in numbers:
                request, hold_s = chance.choice(self.requests), chance.uniform(*HOLD_S)
                if not self.stay:
                    await call(self.port, request, hold_s, reset=number % 2 == 0)
                    continue
                staying.add(asyncio.create_task(call(self.port, request, None)))
                await asyncio.sleep(hold_s)

        await asyncio.gather(*(come() for _ in range(at_once)))
        self.answers += await asyncio.gather(*staying)
        return time.monotonic() - begun


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
