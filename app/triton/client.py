"""One gRPC channel to Triton, and the calls that go over it.

The generated stub is used directly, because tritonclient's wrapper copies every tensor through numpy on the way in and
out. There is one client per process, made in the lifespan of the running loop.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2, service_pb2_grpc

from app.errors import BackendError, DeadlineExceededError
from app.tasks.base import Parameter, Tensors
from app.triton.status import gateway_error, is_dead_step

# Servers before 25.06 crash on calls that are cancelled within milliseconds, so no call gets less.
SHORTEST_DEADLINE_S = 0.05

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # The default back-off takes ten seconds to notice that a restarted server is there again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),
    # A host that vanishes without a word is otherwise noticed by TCP alone, after a quarter of an hour. By the first
    # two it is noticed after 6 s, as gRPC hands the timeout on to TCP; a server that is there and hangs, after 15 s,
    # by a ping without its answer: for that grpcio 1.85 reads the third, else it waits for a minute.
    # `modelctl serve` lets Triton take a ping every 5 s. Others take one in five minutes and close the connection
    # at the third too early (GOAWAY, too_many_pings). gRPC's defaults, kept on purpose, stay below that: no pings
    # without a call, and two at most while the client sends nothing else (grpc/doc/keepalive.md).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # Triton is ours to reach, whatever proxy the environment names for the world outside.
    ("grpc.enable_http_proxy", 0),
)

DATA_TYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
}


class Answer:
    """The tensors of one inference, by name, and the version of the model that gave them."""

    def __init__(self, version: str, tensors: Tensors) -> None:
        self.version = version
        self.tensors = tensors


class TritonClient:
    """Calls one Triton. Failures are raised as `GatewayError`."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel: Any = None
        self._stub: Any = None
        self.dead_steps: dict[str, float] = {}
        """Models of which a step was seen to be dead, and when by the loop's clock."""

    def open(self) -> None:
        """Make the channel; it connects by itself, again and again. Called in the loop that will use it."""
        self._channel = grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def infer(
        self,
        model: str,
        version: str | None,
        item: tuple[str, bytes],
        outputs: Iterable[str],
        parameters: Mapping[str, Parameter],
        request_id: str,
        timeout_s: float,
        traceparent: str = "",
    ) -> Answer:
        """Send one item, the named STRING tensor of shape [1, 1], and return the named outputs.

        Raises:
            GatewayError: whatever went wrong, by the table of `app.triton.status`.

        """
        if timeout_s <= 0:
            raise DeadlineExceededError("The request's deadline passed before the model was called.", model=model)
        request = inference_request(model, version, item, outputs, parameters, request_id)
        # A cancelled call can crash servers before 25.06: the handler may go, the call runs to its deadline.
        call = asyncio.ensure_future(self._call(model, request, max(timeout_s, SHORTEST_DEADLINE_S), traceparent))
        call.add_done_callback(lambda done: done.cancelled() or done.exception())  # looked at, though nobody may wait
        try:
            response = await asyncio.wait_for(asyncio.shield(call), timeout_s)
        except TimeoutError as error:
            raise DeadlineExceededError(
                "The model did not answer within the request's deadline.", model=model
            ) from error
        try:
            return Answer(response.model_version, read_outputs(response))
        except (KeyError, ValueError, struct.error) as error:
            raise BackendError("The model's answer cannot be read.", model=model) from error

    async def _call(self, model: str, request: Any, timeout_s: float, traceparent: str) -> Any:
        metadata = (("traceparent", traceparent),) if traceparent else None
        try:
            return await self._stub.ModelInfer(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            if is_dead_step(details):
                self.dead_steps[model] = asyncio.get_running_loop().time()
            raise gateway_error(error.code(), details, model) from error

    async def repository_index(self, timeout_s: float = 2) -> list[Any]:
        """Return an entry with `name`, `version`, `state` and `reason` for every version that Triton knows."""
        return list((await self._ask("RepositoryIndex", service_pb2.RepositoryIndexRequest(), timeout_s)).models)

    async def model_config(self, model: str, timeout_s: float = 2) -> Any:
        """Return the configuration of a loaded model, as Triton completed it."""
        return (await self._ask("ModelConfig", service_pb2.ModelConfigRequest(name=model), timeout_s)).config

    async def _ask(self, method: str, request: Any, timeout_s: float) -> Any:
        try:
            return await getattr(self._stub, method)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise gateway_error(error.code(), error.details() or "", getattr(request, "name", "")) from error


def inference_request(
    model: str,
    version: str | None,
    item: tuple[str, bytes],
    outputs: Iterable[str],
    parameters: Mapping[str, Parameter],
    request_id: str,
) -> Any:
    """Return the protobuf message for one item."""
    name, value = item
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version or "", id=request_id)
    request.inputs.add(name=name, datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(struct.pack("<I", len(value)) + value)
    for output in outputs:
        request.outputs.add(name=output)
    for option, given in parameters.items():
        setattr(request.parameters[option], _parameter_field(given), given)
    return request


def _parameter_field(value: Parameter) -> str:
    if isinstance(value, bool):
        return "bool_param"
    if isinstance(value, int):
        return "int64_param"
    return "double_param" if isinstance(value, float) else "string_param"


def read_outputs(response: Any) -> dict[str, npt.NDArray[Any]]:
    """Return the raw outputs of a response as arrays; strings stay bytes, in arrays of objects."""
    return {
        output.name: _array(output.datatype, tuple(output.shape), raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def _array(data_type: str, shape: tuple[int, ...], raw: bytes) -> npt.NDArray[Any]:
    if data_type != "BYTES":
        return np.frombuffer(raw, DATA_TYPES[data_type]).reshape(shape)
    values, position = [], 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        values.append(raw[position + 4 : position + 4 + length])
        position += 4 + length
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)
