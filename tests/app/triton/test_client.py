"""Triton's answers: tensors, and answers that cannot be read; and a Triton that stops answering."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from app.api.inference import fields
from app.context import Deadline
from app.errors import BackendError, BackendUnavailableError
from app.tasks import TASKS, detection, sentiment
from app.telemetry.metrics import Metrics
from app.triton.client import TritonClient
from app.triton.messages import read_outputs
from app.triton.question import Answer, Question
from app.triton.served import ServedModel

# Answers the first call of any method with an empty message, and no other for an hour.
SERVER = """
import time, grpc
from concurrent.futures import ThreadPoolExecutor
class Any(grpc.GenericRpcHandler):
    calls = 0
    def service(self, details):
        def answer(request, context):
            self.calls += 1
            if self.calls > 1: time.sleep(3600)
            return b""
        return grpc.unary_unary_rpc_method_handler(answer)
server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Any(),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
time.sleep(3600)
"""


def response(*outputs: tuple[str, str, list[int], bytes]) -> Any:
    """Return an answer of Triton with these outputs: name, data type, shape and bytes."""
    message = service_pb2.ModelInferResponse(model_version="1")
    for name, data_type, shape, raw in outputs:
        message.outputs.add(name=name, datatype=data_type, shape=shape)
        message.raw_output_contents.append(raw)
    return message


def infer(client: TritonClient, timeout_s: float = 1) -> Any:
    """Return the coroutine of one call."""
    model = ServedModel("m", sentiment.TASK, ("1",), True, 1, ())
    return client.infer(Question(model, None, (b"a",), {}, "id", "", Deadline.after(timeout_s)))


def test_outputs_are_read_by_their_types() -> None:
    """Numbers become arrays of their shape, strings arrays of bytes, and no rows are an empty array."""
    strings = b"".join(struct.pack("<I", len(value)) + value for value in (b"one", b""))
    arrays = read_outputs(
        response(
            ("f", "FP32", [1, 2], np.array([1, 2], "<f4").tobytes()),
            ("b", "BOOL", [1, 1], b"\x01"),
            ("s", "BYTES", [1, 2], strings),
            ("none", "FP32", [1, 0, 4], b""),
        )
    )
    assert arrays["f"].tolist() == [[1, 2]]
    assert arrays["b"].tolist() == [[True]]
    assert arrays["s"].tolist() == [[b"one", b""]]
    assert arrays["none"].shape == (1, 0, 4)


@pytest.mark.parametrize(
    "output",
    [
        ("x", "FP99", [1], b"\0\0\0\0"),
        ("x", "FP32", [2], b"\0\0\0\0"),
        ("x", "FP32", [1], b"\0\0\0"),
        ("x", "BYTES", [1], b"\0\0"),
        ("x", "BYTES", [2], b"\1\0\0\0a"),
    ],
    ids=["type", "shape", "size", "length", "count"],
)
def test_outputs_that_cannot_be_read_are_the_models_fault(output: tuple[str, str, list[int], bytes]) -> None:
    """An unknown type, a shape that does not fit its bytes or broken strings are a `backend_error`."""

    async def answer(*_: object, **__: object) -> Any:
        return response(output)

    client = TritonClient("nowhere:1", Metrics())
    client._stub = SimpleNamespace(ModelInfer=answer)
    with pytest.raises(BackendError):
        asyncio.run(infer(client))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tensor", ["box", "score"])
def test_numbers_that_json_cannot_hold_are_the_models_fault(tensor: str, value: float) -> None:
    """A box or a score that is not finite is a `backend_error`."""
    tensors = {
        "box": np.array([[[0, 0, 1, 1]]], np.float32),
        "label": np.array([[b"cat"]], object),
        "class_id": np.array([[0]], np.int32),
        "score": np.array([[0.5]], np.float32),
        "image_size": np.array([[4, 3]], np.int32),
    }
    model = ServedModel("m", detection.TASK, ("1",), True, 1, ())
    assert detection.TASK in TASKS
    assert fields(model, Answer("1", tensors), "id")["predictions"][0]["box"]["xmax"] == 1
    tensors[tensor].flat[0] = value
    with pytest.raises(BackendError):
        fields(model, Answer("1", tensors), "id")


@pytest.mark.slow
def test_a_server_that_hangs_is_noticed_before_the_deadline() -> None:
    """A server that accepts connections but answers no ping is unavailable after 15 s, before a 60 s deadline."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None

    async def ask() -> float:
        port = int(server.stdout.readline())  # type: ignore[union-attr]
        client = TritonClient(f"127.0.0.1:{port}", Metrics())
        client.open()
        await client.repository_index(5)
        call = asyncio.create_task(infer(client, 60))
        await asyncio.sleep(0.5)
        os.kill(server.pid, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(BackendUnavailableError):
            await call
        await client.close()
        return time.monotonic() - begun

    try:
        assert asyncio.run(ask()) < 25
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
