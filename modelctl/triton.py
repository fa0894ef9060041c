"""The few calls that supervision makes to Triton, over gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

READY, UNAVAILABLE = "READY", "UNAVAILABLE"
LOAD_TIMEOUT_S = 120


@dataclass(frozen=True)
class State:
    """What Triton says of a model."""

    name: str
    state: str
    reason: str


class TritonError(Exception):
    """A call that failed; the text is Triton's."""


class Triton:
    """Calls one Triton."""

    def __init__(self, target: str) -> None:
        options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(target, options=options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def is_live(self) -> bool:
        """Tell whether the server answers at all."""
        try:
            return bool(self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=1).live)
        except grpc.RpcError:
            return False

    def states(self) -> dict[str, State]:
        """Return the state of every model of the repository."""
        index = self._call("RepositoryIndex", service_pb2.RepositoryIndexRequest(), 5)
        return {entry.name: State(entry.name, entry.state, entry.reason) for entry in index.models}

    def instances(self, model: str) -> int:
        """Return how many instances a loaded model has."""
        config = self._call("ModelConfig", service_pb2.ModelConfigRequest(name=model), 5).config
        return sum(group.count for group in config.instance_group)

    def load(self, model: str) -> None:
        """Load a model, and with an ensemble its steps."""
        self._call("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name=model), LOAD_TIMEOUT_S)

    def unload(self, model: str) -> None:
        """Unload a model; its dependents stay."""
        self._call("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name=model), LOAD_TIMEOUT_S)

    def _call(self, method: str, request: Any, timeout: float) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=timeout)
        except grpc.RpcError as error:
            raise TritonError(error.details() or str(error.code())) from error
