"""A plain FastAPI application that runs the networks itself: no queue, no batching, FastAPI's own threads.

Tried on 2 cores with 8 callers: see THREADS in docs/benchmarks.md.
"""

from __future__ import annotations

from typing import Annotated

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
    app = FastAPI()

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


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.peers.in_process:make",
        factory=True,
        port=port(),
        workers=Facts.read().workers,
        access_log=False,
        log_level="warning",
    )
