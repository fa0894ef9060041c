"""All attacks at once beside an ordinary client."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import bombs
import httpx
import psutil
import pytest
from broken import FULL, scrape, until
from storm import HOLD_S, call, post

SECONDS = 180 if FULL else 10
TIMEOUT_MS = 8000
PAUSE_S = 0.2
GAP_S = 2.0
SETTLE_S = 60
"""How long memory may take to come back."""
MOST_MEMORY = 2.0
"""To that of the start. tritonserver's own allocator keeps a tenth of a gigabyte or two."""


@dataclass(frozen=True)
class Answered:
    """One request of the steady client. Times are seconds; `at` is the time of its answer."""

    at: float
    seconds: float
    status: int
    right: bool


@pytest.fixture(scope="module")
def attacked(make_stack: Callable[..., Any]) -> Iterator[Any]:
    """Return a separate stack, with the bundled models."""
    made = make_stack(("efficientnet_lite0", "lite_detector", "minilm_sentiment"), {}, test_models=False)
    made.start()
    yield made
    made.stop()


@pytest.mark.alone
@pytest.mark.timeout(SECONDS + SETTLE_S + 120)
def test_all_attacks_at_once(attacked: Any, coffee: bytes, astronaut: bytes, report: Callable[..., None]) -> None:
    """99 % of the steady client's answers are right, none is late, no gap lasts 2 s; both servers live."""
    questions = {
        "/v1/classify": (coffee, "image/jpeg", "espresso"),
        "/v1/detect": (astronaut, "image/jpeg", "person"),
        "/v1/sentiment": (b'{"text": "I love it"}', "application/json", "positive"),
    }
    warm(attacked, questions)
    before, processes = memory(attacked), identities(attacked)
    answers, attacks = asyncio.run(storm(attacked, questions, coffee))
    right = sum(one.right for one in answers) / len(answers)
    gaps = [after.at - earlier.at for earlier, after in itertools.pairwise(one for one in answers if one.right)]
    report(
        answers=len(answers),
        right=round(right, 4),
        slowest_s=round(max(one.seconds for one in answers), 2),
        longest_gap_s=round(max(gaps), 2),
        attacks=attacks,
    )
    rest = until(lambda: settled(attacked), SETTLE_S)
    report(at_rest_s=round(rest, 1), memory_mb=[round(before / 1e6), round(memory(attacked) / 1e6)])
    until(lambda: memory(attacked) < MOST_MEMORY * before, SETTLE_S)
    assert right >= 0.99, Counter(one.status for one in answers)
    assert max(one.seconds for one in answers) <= TIMEOUT_MS / 1000
    assert max(gaps) <= GAP_S
    assert identities(attacked) == processes
    assert min(attacks.values()) > 0


def warm(stack: Any, questions: dict[str, tuple[bytes, str, str]]) -> None:
    """Let each model answer a few times, so that memory reaches its steady size."""
    with stack.client() as http:
        for path, (body, kind, _) in questions.items():
            for _ in range(20):
                assert http.post(path, content=body, headers={"Content-Type": kind}).status_code == 200


def memory(stack: Any) -> int:
    """Return the private bytes of gateway, Triton and its steps; shared memory stays at its largest."""
    roots = [psutil.Process(stack.gateway.pid), psutil.Process(stack.triton.pid)]
    family = [process for root in roots for process in (root, *root.children(recursive=True))]
    total = 0
    for process in family:
        try:
            total += process.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue
    return total


def identities(stack: Any) -> set[tuple[int, float]]:
    """Return gateway, Triton and its steps, each by process id and time of birth."""
    roots = [psutil.Process(stack.gateway.pid), psutil.Process(stack.triton.pid)]
    family = [*roots, *roots[1].children(recursive=True)]
    return {(one.pid, one.create_time()) for one in family if one.name() != "python3" or one in roots}


def settled(stack: Any) -> bool:
    """Return whether no item is under way and the gateway is ready."""
    values = scrape(stack)
    busy = sum(values["gateway_items_with_triton"]) + sum(values["gateway_triton_calls_running"])
    return not busy and httpx.get(f"{stack.url}/readyz", trust_env=False).status_code == 200


async def storm(
    stack: Any, questions: dict[str, tuple[bytes, str, str]], coffee: bytes
) -> tuple[list[Answered], dict[str, int]]:
    """Attack for a while; return the outcomes of the steady client, and the number of attacks by kind."""
    end = time.monotonic() + SECONDS
    kinds = attackers(stack, coffee)
    running = [asyncio.create_task(again(attack, end)) for attack in kinds.values()]
    answers = await steady(stack, questions, end)
    return answers, dict(zip(kinds, await asyncio.gather(*running), strict=True))


async def steady(stack: Any, questions: dict[str, tuple[bytes, str, str]], end: float) -> list[Answered]:
    """Send a request of each task in turn, a few times a second."""
    answers = []
    async with httpx.AsyncClient(base_url=stack.url, timeout=20, trust_env=False) as http:
        for path, (body, kind, expected) in itertools.cycle(questions.items()):
            if time.monotonic() > end:
                return answers
            begun = time.monotonic()
            headers = {"Content-Type": kind, "X-Request-Timeout-Ms": str(TIMEOUT_MS)}
            answer = await http.post(path, content=body, headers=headers)
            said = answer.json()
            label = said.get("label") or next((one["label"] for one in said.get("predictions", [])), "")
            now = time.monotonic()
            answers.append(Answered(now, now - begun, answer.status_code, label == expected))
            await asyncio.sleep(PAUSE_S)
    return answers


async def again(attack: Callable[[], Awaitable[None]], end: float) -> int:
    """Repeat one attack until the end; return the number of attacks."""
    count = 0
    while time.monotonic() < end:
        async with asyncio.timeout(30):
            await attack()
        count += 1
    return count


def attackers(stack: Any, coffee: bytes) -> dict[str, Callable[[], Awaitable[None]]]:
    """Return every attack on a running service, by name."""
    scans = post("/v1/classify", bombs.scans(4000, 4000, 200_000), "image/jpeg")
    flood = post("/v1/classify", bombs.in_header(bombs.segment(0xE1, b"Exif\0\0") * 800_000), "image/jpeg")
    slow = post("/v1/classify", bombs.noise(4000, 3000, "AVIF", speed=10), "image/jpeg")
    lists = post("/v1/classify/batch", b'{"images":[' + b"[]," * 3_000_000 + b"[]]}")
    large = bombs.noise(4000, 2500, "JPEG", quality=30)
    unread = post("/v1/detect", large, "image/jpeg", "Accept: image/png\r\n")
    foreign = post("/v1/classify", coffee, "image/jpeg", "Origin: http://evil.example\r\n")

    async def refused(request: bytes, status: bytes, pause_s: float) -> None:
        answer = await call(stack.port, request, None)
        assert not answer or status in answer, answer  # a client that sends on may see its connection reset
        await asyncio.sleep(pause_s)

    async def hang_up() -> None:
        await call(stack.port, post("/v1/classify", coffee, "image/jpeg"), random.uniform(*HOLD_S))
        await asyncio.sleep(PAUSE_S)

    return {
        "scans": lambda: refused(scans, b" 413 ", PAUSE_S),
        "flood": lambda: refused(flood, b" 413 ", PAUSE_S),
        "slow": lambda: refused(slow, b" 200 ", 2),
        "lists": lambda: refused(lists, b" 413 ", PAUSE_S),
        "foreign": lambda: refused(foreign, b" 403 ", PAUSE_S),
        "unread": lambda: call_and_wait(stack, unread),
        "hang_up": hang_up,
    }


async def call_and_wait(stack: Any, request: bytes) -> None:
    """Send a request and read nothing of its answer."""
    await call(stack.port, request, 4)
