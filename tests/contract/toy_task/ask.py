"""Asks the gateway of this folder for a topic, its Python step run in this process; prints what it answers."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
from google.protobuf import text_format
from google.protobuf.json_format import MessageToJson
from tritonclient.grpc import model_config_pb2 as pb

from app.api import tasks
from app.api.application import Gateway
from app.http.drain import Drain
from app.scheduling.slot import Slot
from app.telemetry.metrics import Metrics
from app.triton.question import Answer, Question
from app.triton.served import served_model
from tests.standins import triton

MODELS = Path("models")


def config(name: str) -> Any:
    """Return a rendered configuration."""
    return text_format.Parse((MODELS / name / "config.pbtxt").read_text(), pb.ModelConfig())


def step() -> Any:
    """Return the loaded postprocess step."""
    sys.modules["triton_python_backend_utils"] = SimpleNamespace(  # type: ignore[assignment]  # Triton's own
        Tensor=lambda name, array: SimpleNamespace(name=name, as_numpy=lambda: array),
        InferenceResponse=lambda tensors: SimpleNamespace(tensors=tensors),
        get_input_tensor_by_name=lambda request, name: request.tensors[name],
    )
    (MODELS / "toy_network" / "labels.txt").write_text("politics\nsports\n")
    spec = importlib.util.spec_from_file_location("step", Path("backends", "topic_postprocess", "model.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    text = MessageToJson(config("toy_postprocess"), preserving_proto_field_name=True)
    model.initialize({"model_config": text, "model_repository": str((MODELS / "toy_postprocess").resolve())})
    return model


async def ask() -> dict[str, Any]:
    """Send one text to the route."""
    model = step()
    served = served_model(config("toy"), ("1",))
    assert served is not None

    async def send(_: Question, slot: Slot) -> Answer:
        slot.end()
        logits = SimpleNamespace(as_numpy=lambda: np.array([[0, 1]], np.float32))
        (response,) = model.execute([SimpleNamespace(tensors={"logits": logits})])
        return Answer("1", {tensor.name: tensor.as_numpy() for tensor in response.tensors})

    parts = triton.parts(send, served)
    parts.catalog._merge()
    app = Gateway(parts.settings, Metrics(), Drain())
    app.include_router(tasks.router(parts))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        answer = await client.post("/v1/topic", json={"text": "The match ended with three goals."})
    paths = sorted(path for path in app.openapi()["paths"] if path.startswith("/v1/topic"))
    return {"fault": served.fault, "paths": paths, "status": answer.status_code, "answer": answer.json()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask())))
