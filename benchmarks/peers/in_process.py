"""A plain FastAPI application that runs the networks itself, without a queue and without batching.

Each process answers as many concurrent requests as it has cores: one, with a process per core. FastAPI's default of 40
threads, which take turns on a core, took more CPU per answer; one process with two threads took no less.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio.to_thread
import uvicorn
from fastapi import Body, FastAPI
from pydantic import BaseModel

from benchmarks.peers.pipeline import Answer, Facts, Pipeline, port

JPEG = Body(media_type="image/jpeg")


class Text(BaseModel):
    """The body of a request about a text."""

    text: str


def make() -> FastAPI:
    """Return the application of one worker."""
    facts = Facts.read()
    pipelines = {task: Pipeline(facts, task) for task in facts.tasks}
    app = FastAPI(lifespan=_at_once)

    @app.post("/v1/classify")
    def classify(image: Annotated[bytes, JPEG]) -> Answer:
        return pipelines["classify"]([image])[0]

    @app.post("/v1/detect")
    def detect(image: Annotated[bytes, JPEG]) -> Answer:
        return pipelines["detect"]([image])[0]

    @app.post("/v1/sentiment")
    def sentiment(body: Text) -> Answer:
        return pipelines["sentiment"]([body.text.encode()])[0]

    return app


@asynccontextmanager
async def _at_once(_: FastAPI) -> AsyncIterator[None]:
    facts = Facts.read()
    anyio.to_thread.current_default_thread_limiter().total_tokens = max(1, facts.cores // facts.workers)
    yield


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.peers.in_process:make",
        factory=True,
        port=port(),
        workers=Facts.read().workers,
        access_log=False,
        log_level="warning",
    )
