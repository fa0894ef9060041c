"""Items of a batch that failed inside Triton are sent once more, one at a time, so that only the bad one is refused."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from app.context import Deadline
from app.errors import BatchFailedError, DeadlineExceededError
from app.memory import Budget
from app.scheduling import turns
from app.scheduling.coalescing import Coalescer
from app.scheduling.queue import ModelQueue
from app.scheduling.slot import Slot
from app.tasks import classification, sentiment
from app.tasks.base import Task
from app.telemetry.metrics import Metrics
from app.triton.question import Answer, Question
from app.triton.served import ServedModel
from app.triton.servers import Servers

BAD = b"bad"
MODEL = "model"


class Batching(Servers):
    """A Triton that batches the calls of a moment, and fails them all when one item is bad, as NVIDIA's backends do."""

    def __init__(self, task: Task, max_batch_size: int = 8) -> None:
        super().__init__(("nowhere:1",), Metrics())
        self.model = ServedModel(MODEL, task, ("1",), True, max_batch_size, ())
        (client,) = self.clients
        client.models, client.item_s = {MODEL: self.model}, {MODEL: 0.0005}
        self.calls: list[Question] = []
        self.most_resent_at_once = 0
        self._batch: list[Question] = []

    async def infer(self, question: Question) -> Answer:
        """Answer each item with itself, or fail with the batch."""
        self.calls.append(question)
        batch = self._batch
        batch.append(question)
        self.most_resent_at_once = max(self.most_resent_at_once, sum(one.resent for one in batch))
        await asyncio.sleep(0.005)
        if self._batch is batch:
            self._batch = []
        if any(BAD in one.items for one in batch):
            raise BatchFailedError("A step of the model failed on this request.")
        labels = np.array([[item] for item in question.items], object)
        ones = np.ones((len(question.items), 1))
        return Answer("1", {"label": labels, "score": ones, "token_count": ones, "truncated": ones > 1})


def send(servers: Batching, items: list[bytes], left_s: float = 5) -> list[Any]:
    """Send all items at once; return answers and failures in order."""

    async def sent() -> list[Any]:
        coalescer, queue = Coalescer(servers, Budget(1000)), ModelQueue(MODEL, 99, 99, time.monotonic(), Metrics())
        asked = []
        for item in items:
            assert queue.take()
            question = Question(servers.model, None, (item,), {}, "id", "", Deadline.after(left_s))
            asked.append(coalescer.send(question, Slot(queue, None)))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        async with asyncio.timeout(10):
            while queue.with_triton:  # no slot is lost, whatever happens
                await asyncio.sleep(0.001)
        return answers

    return asyncio.run(sent())


def labels(answers: list[Any]) -> list[Any]:
    """Return the label of each answer, None for a failed batch."""
    return [
        None if isinstance(answer, BatchFailedError) else answer.tensors["label"].ravel().tolist()[0]
        for answer in answers
    ]


@pytest.mark.parametrize("task", [classification.TASK, sentiment.TASK], ids=["pictures", "texts"])
def test_a_bad_item_fails_alone(task: Task) -> None:
    """Seven of eight that Triton batched together are answered, and no item is sent more than twice."""
    servers = Batching(task)
    items = [b"1", b"2", b"3", BAD, b"5", b"6", b"7", b"8"]
    assert labels(send(servers, items)) == [None if item == BAD else item for item in items]
    assert servers.most_resent_at_once == 1
    sent = [item for question in servers.calls for item in question.items]
    assert all(sent.count(item) <= 2 for item in items)


def test_a_model_without_batches_is_not_asked_again() -> None:
    """Its failure is that of the item."""
    servers = Batching(classification.TASK, max_batch_size=1)
    assert labels(send(servers, [BAD])) == [None]
    assert len(servers.calls) == 1


def test_a_model_that_always_fails_gets_one_more_call_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many items wait for their turn; the others fail with their batch."""
    monkeypatch.setattr(turns, "MAX_WAITING", 4)
    servers = Batching(classification.TASK)
    assert labels(send(servers, [BAD] * 20)) == [None] * 20
    assert len([question for question in servers.calls if question.resent]) == 4
    assert servers.most_resent_at_once == 1


def test_an_item_whose_deadline_passes_in_the_queue_is_not_sent_again() -> None:
    """Its caller gets 504, and Triton no needless call."""
    servers = Batching(classification.TASK)
    answers = send(servers, [BAD] * 12, left_s=0.03)
    late = [answer for answer in answers if isinstance(answer, DeadlineExceededError)]
    assert late
    assert len(servers.calls) < 24


def test_turns_are_forgotten_when_nobody_waits() -> None:
    """Models come and go."""

    async def test() -> None:
        made = turns.Turns()
        async with made.take(MODEL):
            assert not made.is_full(MODEL)
        assert not made._turns

    asyncio.run(test())
