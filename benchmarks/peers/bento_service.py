"""The three tasks in BentoML: one service whose workers batch waiting requests adaptively.

One worker per core with one thread; one worker with two threads took no less CPU time. Adaptive batching is the feature
compared here, and it has no setting for batches of one.

An API that batches takes a list; `Item` makes a list of one from a body, so that callers need not send lists.
"""

# BentoML reads the types of the APIs at run time: no postponed annotations here.

from typing import Annotated, Any

import bentoml
from pydantic import PlainValidator, WithJsonSchema

from benchmarks.peers.pipeline import Facts, Pipeline, item

MAX_BATCH, MAX_LATENCY_MS = 8, 10_000
FACTS = Facts.read()

Item = Annotated[
    list[bytes],
    PlainValidator(lambda body: [bytes(body)]),
    WithJsonSchema({"type": "file", "format": "binary"}),
]
OPTIONS = {"batchable": True, "max_batch_size": FACTS.batch(MAX_BATCH), "max_latency_ms": MAX_LATENCY_MS}


@bentoml.service(workers=FACTS.workers, threads=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Tasks:
    """All tasks, in each worker."""

    def __init__(self) -> None:
        self._pipelines = {task: Pipeline(FACTS, task) for task in FACTS.tasks}

    @bentoml.api(route="/v1/classify", **OPTIONS)  # type: ignore[untyped-decorator]
    def classify(self, bodies: Item, /) -> list[dict[str, Any]]:
        """Answer a batch of pictures."""
        return self._pipelines["classify"](bodies)

    @bentoml.api(route="/v1/detect", **OPTIONS)  # type: ignore[untyped-decorator]
    def detect(self, bodies: Item, /) -> list[dict[str, Any]]:
        """Answer a batch of pictures."""
        return self._pipelines["detect"](bodies)

    @bentoml.api(route="/v1/sentiment", **OPTIONS)  # type: ignore[untyped-decorator]
    def sentiment(self, bodies: Item, /) -> list[dict[str, Any]]:
        """Answer a batch of texts."""
        return self._pipelines["sentiment"]([item("sentiment", body) for body in bodies])
