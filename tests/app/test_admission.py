"""Who gets a place: single requests at once or not at all, items of a batch in their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from app.admission import Admission
from app.errors import DeadlineExceededError, OverloadedError


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in a loop of its own, which must not take long."""
    asyncio.run(asyncio.wait_for(test, 5))


def test_a_single_request_is_refused_at_once_when_all_places_are_taken() -> None:
    """The bound is kept for each model apart, and a place that is given back serves the next."""

    async def test() -> None:
        admission = Admission(2)
        first = await admission.enter("a")
        await admission.enter("a")
        await admission.enter("b")
        with pytest.raises(OverloadedError):
            await admission.enter("a")
        first.close()
        await admission.enter("a")

    run(test())


def test_an_item_of_a_batch_waits_for_its_place() -> None:
    """It is not refused while there is time left."""

    async def test() -> None:
        admission = Admission(2)
        places = [await admission.enter("a"), await admission.enter("a")]
        waiting = asyncio.create_task(admission.wait("a", 5))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        places[0].close()
        with await waiting, pytest.raises(OverloadedError):
            await admission.enter("a")

    run(test())


@pytest.mark.parametrize("timeout_s", [0.05, 0, -1])
def test_an_item_that_waits_too_long_exceeds_the_deadline(timeout_s: float) -> None:
    """Its wait ends at the deadline, and takes no place from anybody."""

    async def test() -> None:
        admission = Admission(2)
        places = [await admission.enter("a"), await admission.enter("a")]
        with pytest.raises(DeadlineExceededError):
            await admission.wait("a", timeout_s)
        for place in places:
            place.close()
        for _ in range(2):
            await admission.enter("a")

    run(test())


def test_batches_leave_places_to_single_requests() -> None:
    """However many items of batches wait, half of the places are for others."""

    async def test() -> None:
        admission = Admission(4)
        waiting = [asyncio.create_task(admission.wait("a", 5)) for _ in range(10)]
        await asyncio.sleep(0.05)
        assert sum(task.done() for task in waiting) == 2
        for _ in range(2):
            await admission.enter("a")
        for task in waiting:
            task.cancel()

    run(test())


def test_single_requests_leave_places_to_batches() -> None:
    """A place that becomes free goes to the item that waits for it, not to the single request that comes just then."""

    async def test() -> None:
        admission = Admission(4)
        places = [await admission.enter("a") for _ in range(4)]
        waiting = asyncio.create_task(admission.wait("a", 5))
        await asyncio.sleep(0.05)
        places[0].close()
        with pytest.raises(OverloadedError):
            await admission.enter("a")
        await waiting

    run(test())
