"""Requests at a steady rate, independent of the answers (an open loop), and the outcome of each."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Outcome:
    """The outcome of one request. Times are seconds; `status` is 0 when the connection broke."""

    at: float
    seconds: float
    status: int
    right: bool
    code: str = ""
    retry_after: int = 0
    request_id: str = ""


class Outcomes(list[Outcome]):
    """The outcomes of all requests."""

    def statuses(self) -> Counter[str]:
        """Return the number of requests by status and problem code."""
        return Counter(f"{one.status} {one.code}".strip() for one in self)

    @property
    def successes(self) -> list[Outcome]:
        """The requests with the expected answer."""
        return [one for one in self if one.status == 200 and one.right]

    def percentile(self, share: float) -> float:
        """Return the time within which this share of the successes was answered."""
        times = sorted(one.seconds for one in self.successes)
        return times[min(len(times) - 1, int(len(times) * share))]

    def wrong(self) -> list[Outcome]:
        """The requests with an unexpected answer."""
        return [one for one in self if one.status == 200 and not one.right]


async def ask(http: httpx.AsyncClient, url: str, number: int, headers: dict[str, str]) -> Outcome:
    """Send one text, which the model `paced` returns as the label."""
    text, begun = f"number {number}", time.monotonic()
    try:
        answer = await http.post(f"{url}/v1/sentiment?model=paced", json={"text": text}, headers=headers)
    except httpx.ConnectError:
        raise
    except httpx.HTTPError as error:
        return Outcome(begun, time.monotonic() - begun, 0, right=False, code=type(error).__name__)
    said = answer.json()
    return Outcome(
        begun,
        time.monotonic() - begun,
        answer.status_code,
        right=said.get("label") == text,
        code=said.get("code", ""),
        retry_after=int(answer.headers.get("retry-after", 0)),
        request_id=answer.headers["x-request-id"],
    )


async def offer(
    urls: Callable[[], Sequence[str]],
    rate: float,
    seconds: float,
    *,
    timeout_ms: int = 5000,
    obey: bool = False,
    beside: Callable[[], Awaitable[object]] | None = None,
) -> tuple[Outcomes, Outcomes]:
    """Send `rate` requests a second for some seconds.

    Args:
        urls: returns the gateways that may be asked now; they are asked in turns.
        obey: whether who is refused comes back, once, when it was told to.
        beside: something else that is done meanwhile.

    Returns:
        what became of the requests, and of those that came back.

    """
    first, second = Outcomes(), Outcomes()
    headers = {"X-Request-Timeout-Ms": str(timeout_ms)}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)

    async def one(http: httpx.AsyncClient, number: int) -> None:
        outcome = await _somewhere(http, urls, number, headers)
        first.append(outcome)
        if obey and outcome.retry_after:
            await asyncio.sleep(outcome.retry_after)
            again = {**headers, "X-Request-ID": outcome.request_id}
            second.append(await _somewhere(http, urls, number, again))

    async with httpx.AsyncClient(timeout=timeout_ms / 1000 + 20, limits=limits, trust_env=False) as http:
        chaos = asyncio.ensure_future(beside()) if beside is not None else None
        begun, tasks = time.monotonic(), []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            tasks.append(asyncio.create_task(one(http, number)))
        await asyncio.gather(*tasks)
        if chaos is not None:
            await chaos
    return first, second


async def _somewhere(
    http: httpx.AsyncClient, urls: Callable[[], Sequence[str]], number: int, headers: dict[str, str]
) -> Outcome:
    """Send to one of the gateways. One that refuses the connection never got the request, so the next is tried."""
    begun = time.monotonic()
    for attempt in range(4):
        known = urls()
        if known:
            try:
                return await ask(http, known[(number + attempt) % len(known)], number, headers)
            except httpx.ConnectError:
                pass
        await asyncio.sleep(0.05)
    return Outcome(begun, time.monotonic() - begun, 0, right=False, code="ConnectError")
