"""Callers who hang up: their items count until their calls have ended, and other callers are not delayed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from broken import FULL, Triton, scrape, until
from storm import Storm, call, mixed, percentile, post

Make = Callable[..., Any]
BUNDLED = ("efficientnet_lite0", "lite_detector", "minilm_sentiment")
SLOTS = 4
ASK = "/v1/sentiment?model=paced"
TEXT = post(ASK, b'{"text": "hello"}')
BATCH = post("/v1/sentiment/batch?model=paced", json.dumps({"texts": ["hello"] * 20}).encode())
IMPATIENT = post(ASK, b'{"text": "hello"}', extra="X-Request-Timeout-Ms: 60\r\n")


@pytest.fixture(scope="module")
def triton(make_triton: Make) -> Triton:
    """Return a Triton."""
    return make_triton()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def gateway(triton: Triton, make_gateway: Make) -> Any:
    """Return a gateway with few slots."""
    return make_gateway(triton, GATEWAY_MAX_ITEMS_PER_MODEL=str(SLOTS))


def under_way(gateway: Any) -> tuple[int, int, int]:
    """Return the numbers of items that hold a slot, of running calls, and of waiting items."""
    found = scrape(gateway)
    names = ("gateway_items_with_triton", "gateway_triton_calls_running", "gateway_items_waiting")
    with_triton, running, waiting = (int(sum(found[name])) for name in names)
    return with_triton, running, waiting


def at_rest(gateway: Any) -> bool:
    """Return whether no item is under way and no bytes are held."""
    return under_way(gateway) == (0, 0, 0) and not sum(scrape(gateway)["gateway_body_bytes"])


@pytest.mark.parametrize("requests", [[TEXT], [IMPATIENT], [TEXT, BATCH]], ids=["singles", "deadlines", "batches"])
def test_calls_never_outnumber_slots(triton: Triton, gateway: Any, requests: list[bytes], report: Make) -> None:
    """Even if callers hang up or set a deadline of 60 ms; later callers only wait for slots."""
    triton.pace(0.05)
    seen: list[tuple[int, int, int]] = []

    async def watch() -> None:
        while True:
            seen.append(await asyncio.to_thread(under_way, gateway))

    async def attack() -> float:
        watching = asyncio.create_task(watch())
        storm = Storm(gateway.port, requests, stay=requests == [IMPATIENT])
        await storm.run(2000 if FULL else 200)
        begun = time.monotonic()
        answer = await call(gateway.port, TEXT, None)
        seconds = time.monotonic() - begun
        assert b" 200 " in answer
        watching.cancel()
        return seconds

    seconds = asyncio.run(attack())
    peak = tuple(max(values) for values in zip(*seen, strict=True))
    report(with_triton_calls_waiting=peak, next_s=round(seconds, 2))
    assert 1 <= peak[0] <= SLOTS
    assert 1 <= peak[1] <= SLOTS
    until(lambda: at_rest(gateway), 3)
    triton.pace(0)


def test_an_end_while_queued_is_a_hang_up(triton: Triton, make_gateway: Make) -> None:
    """It frees the turn at once; a call that is with Triton runs on, and its caller reads the answer."""
    gateway = make_gateway(triton, GATEWAY_MAX_ITEMS_PER_MODEL="1")
    triton.pace(2)

    async def half(request: bytes, pause_s: float) -> tuple[bytes, float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request)
        await asyncio.sleep(pause_s)
        writer.write_eof()
        begun = time.monotonic()
        said = await reader.read()
        writer.close()
        return said, time.monotonic() - begun

    async def test() -> None:
        asked = asyncio.create_task(half(TEXT, 0.1))
        await asyncio.sleep(0.05)
        for request, waiting in ((TEXT, 1), (BATCH, 16)):
            for pause_s in (0.1, 0):  # the end comes while it waits, or before
                queued = asyncio.create_task(half(request, pause_s))
                if pause_s:
                    await asyncio.sleep(0.06)
                    assert await asyncio.to_thread(under_way, gateway) == (1, 1, waiting)
                said, seconds = await queued
                assert (said, seconds < 1) == (b"", True)
                assert await asyncio.to_thread(under_way, gateway) == (1, 1, 0)
        said, _ = await asked
        assert b"200 OK" in said
        assert b'"label":"hello"' in said

    asyncio.run(test())
    assert at_rest(gateway)
    assert sum(scrape(gateway, 'status="499"')["gateway_requests_total"]) == 4
    triton.pace(0)


def test_abandoned_batches_end_with_their_calls(triton: Triton, gateway: Any) -> None:
    """Unsent items are dropped; the others hold their slots until Triton answers."""
    triton.pace(0.1)
    asyncio.run(call(gateway.port, BATCH, 0.05))
    assert under_way(gateway) == (SLOTS, SLOTS, 0)
    seconds = until(lambda: at_rest(gateway), 3)
    assert seconds > 0.1
    triton.pace(0)


def test_hang_ups_do_not_delay_other_callers(triton: Triton, gateway: Any, report: Make) -> None:
    """A steady client's p99 beside hang-ups is at most 1.5 times that beside callers who stay."""
    triton.pace(0.01)
    found: dict[bool, float] = {}

    async def steady(until_done: asyncio.Event) -> list[float]:
        times = []
        while not until_done.is_set():
            begun = time.monotonic()
            if b" 200 " in await call(gateway.port, TEXT, None):
                times.append(time.monotonic() - begun)
            await asyncio.sleep(0.01)
        return times

    async def beside(stay: bool) -> float:
        done = asyncio.Event()
        asked = asyncio.create_task(steady(done))
        await Storm(gateway.port, [TEXT, BATCH], stay=stay).run(3000 if FULL else 300)
        done.set()
        return percentile(await asked, 0.99)

    for stay in (True, False):
        found[stay] = asyncio.run(beside(stay))
        until(lambda: at_rest(gateway), 20)
    report(p99_beside_those_who_stay_s=round(found[True], 2), beside_hang_ups_s=round(found[False], 2))
    assert found[False] <= 1.5 * found[True]
    triton.pace(0)


@pytest.mark.skipif(not FULL, reason="ten storms take minutes: FAULTS=full")
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_triton_lives_through_storms(make_triton: Make, make_gateway: Make, report: Make, coffee: bytes) -> None:
    """After each of ten storms of 3,000 hang-ups the same server answers, and all slots and bytes are free."""
    triton = make_triton(*BUNDLED)
    gateway = make_gateway(triton)
    before = triton.process
    assert before is not None
    for number in range(10):
        seconds = asyncio.run(Storm(gateway.port, mixed(coffee, coffee), seed=number).run(3000))
        answer = httpx.post(
            f"{gateway.url}/v1/classify", content=coffee, timeout=120, headers={"Content-Type": "image/*"}
        )
        report(storm_s=round(seconds, 1), next_s=round(answer.elapsed.total_seconds(), 2), status=answer.status_code)
        assert answer.status_code == 200
        until(lambda: at_rest(gateway), 20)
        assert triton.process == before
    gateway.stop()
