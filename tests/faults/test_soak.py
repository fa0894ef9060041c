"""A long run of all kinds of load: memory does not grow."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import psutil
import pytest
from broken import FULL, Triton

REQUESTS = 100_000 if FULL else 1_500
CALLERS = 16


@pytest.mark.timeout(3000 if FULL else 120)
def test_a_long_time_of_everything(
    make_triton: Callable[..., Triton],
    make_gateway: Callable[..., Any],
    coffee: bytes,
    report: Callable[..., None],
) -> None:
    """Memory of gateway and Triton at the end is within 5 % of that after the first tenth."""
    triton = make_triton("efficientnet_lite0", "lite_detector", "minilm_sentiment")
    gateway = make_gateway(triton)
    statuses: Counter[int] = Counter()
    memory: list[tuple[int, int]] = []

    async def ask(http: httpx.AsyncClient, number: int) -> int:
        kind = number % 40
        if kind == 0:
            return (await http.post("/v1/classify", files={"image": coffee})).status_code
        if kind == 1:
            return (await http.post("/v1/detect", content=coffee, headers={"Content-Type": "image/jpeg"})).status_code
        if kind == 2:
            return (await http.post("/v1/classify", content=coffee[: number % 5000])).status_code
        if kind == 3:
            texts = ["good", "bad " * (number % 60), ""]
            return (await http.post("/v1/sentiment/batch", json={"texts": texts})).status_code
        if kind == 4:
            return (await http.get("/v1/models")).status_code
        if kind == 5:
            return (await http.post("/v1/sentiment", json={"text": ""})).status_code
        if kind < 12:
            return (
                await http.post("/v1/sentiment", json={"text": f"It was number {number}. " * (kind - 5)})
            ).status_code
        return (await http.post("/v1/sentiment?model=paced", json={"text": f"number {number}"})).status_code

    async def main() -> None:
        numbers = iter(range(REQUESTS))

        async def caller(http: httpx.AsyncClient) -> None:
            for number in numbers:
                statuses[await ask(http, number)] += 1
                if number == REQUESTS // 10:
                    memory.append(measure())

        async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as http:
            await asyncio.gather(*(caller(http) for _ in range(CALLERS)))
        memory.append(measure())

    def measure() -> tuple[int, int]:
        return psutil.Process(gateway.gateway.pid).memory_info().rss, triton.memory()

    asyncio.run(main())
    (own, server), (own_end, server_end) = memory
    report(
        requests=sum(statuses.values()),
        statuses=dict(statuses),
        gateway_mb=[round(own / 1e6), round(own_end / 1e6)],
        triton_mb=[round(server / 1e6), round(server_end / 1e6)],
    )
    assert set(statuses) == {200, 415, 422}
    margin = 1.05 if FULL else 1.3  # a short run has hardly seen everything once
    assert own_end < own * margin
    assert server_end < server * margin
