"""A typical proxy in front of the same Triton ensembles, which makes a client for each request.

FastAPI, uvicorn and tritonclient with their defaults: one process, endpoints on FastAPI's threads.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import tritonclient.grpc as triton
import uvicorn
from fastapi import Body, FastAPI
from pydantic import BaseModel

from benchmarks.peers.pipeline import SIDES, Answer, Facts, port, sentiment, size

JPEG = Body(media_type="image/jpeg")
OUTPUTS = {
    "classify": ("label", "class_id", "score", "image_size"),
    "detect": ("label", "class_id", "score", "image_size", "box"),
    "sentiment": ("label", "score", "token_count", "truncated"),
}


class Text(BaseModel):
    """The body of a request about a text."""

    text: str


def make() -> FastAPI:
    """Return the application."""
    facts = Facts.read()
    app = FastAPI()

    def infer(task: str, name: str, item: bytes) -> dict[str, Any]:
        tensor = triton.InferInput(name, [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[item]], object))
        with triton.InferenceServerClient(facts.triton) as client:
            result = client.infer(facts.tasks[task]["ensemble"]["name"], [tensor])
        return {output: result.as_numpy(output)[0] for output in OUTPUTS[task]}

    @app.post("/v1/classify")
    def classify(image: Annotated[bytes, JPEG]) -> Answer:
        found = infer("classify", "image", image)
        return {"image": size(found), "predictions": _predictions(found)}

    @app.post("/v1/detect")
    def detect(image: Annotated[bytes, JPEG]) -> Answer:
        found = infer("detect", "image", image)
        boxes = [{"box": dict(zip(SIDES, box, strict=True))} for box in found["box"].tolist()]
        return {
            "image": size(found),
            "predictions": [one | box for one, box in zip(_predictions(found), boxes, strict=True)],
        }

    @app.post("/v1/sentiment")
    def about(body: Text) -> Answer:
        found = infer("sentiment", "text", body.text.encode())
        ranked = zip((label.decode() for label in found["label"]), found["score"].tolist(), strict=True)
        return sentiment(list(ranked), found)

    return app


def _predictions(found: dict[str, Any]) -> list[Answer]:
    rows = zip(found["label"], found["class_id"].tolist(), found["score"].tolist(), strict=True)
    return [{"label": label.decode(), "class_id": index, "score": score} for label, index, score in rows]


if __name__ == "__main__":
    uvicorn.run(make(), port=port(), access_log=False, log_level="warning")
