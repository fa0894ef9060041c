"""The gRPC calls to Triton for supervision: health, states, configurations, loading."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from modelctl.embedded import control

READY, UNAVAILABLE = "READY", "UNAVAILABLE"
LOAD_TIMEOUT_S = 120
POLL_S = 0.1


@dataclass(frozen=True)
class State:
    """A model's state in Triton: READY when one of its versions is. `versions` is the number of READY ones."""

    name: str
    state: str = ""
    reason: str = ""
    versions: int = 0


class TritonError(Exception):
    """A call that failed; the text is Triton's."""


class Triton:
    """Calls one Triton.

    Args:
        target: host:port.
        stopping: when it is set, calls in progress are cancelled, because a load may take minutes.
        key: of the control protocols; when empty, `control.find` is called once Triton refuses a call.

    """

    def __init__(self, target: str, stopping: threading.Event | None = None, key: str = "") -> None:
        self._key = key
        options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(target, options=options)
        self._stopping = stopping or threading.Event()
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def is_live(self) -> bool:
        """Tell whether the server answers at all."""
        try:
            return bool(self._call("ServerLive", service_pb2.ServerLiveRequest(), 1).live)
        except TritonError:
            return False

    def is_ready(self) -> bool:
        """Tell whether the server is ready."""
        try:
            return bool(self._call("ServerReady", service_pb2.ServerReadyRequest(), 4).ready)
        except TritonError:
            return False

    def inferences(self, model: str) -> int:
        """Return how many items a model has answered since it was loaded."""
        request = service_pb2.ModelStatisticsRequest(name=model)
        return sum(one.inference_count for one in self._call("ModelStatistics", request, 10).model_stats)

    def states(self) -> dict[str, State]:
        """Return the state of every model of the repository."""
        index = self._call("RepositoryIndex", service_pb2.RepositoryIndexRequest(), 5)
        found: dict[str, State] = {}
        for entry in index.models:  # one for each version
            versions = found.get(entry.name, State(entry.name)).versions
            if entry.state == READY:
                found[entry.name] = State(entry.name, READY, "", versions + 1)
            elif not versions:
                found[entry.name] = State(entry.name, entry.state, entry.reason)
        return found

    def state(self, model: str) -> str:
        """Return a model's state; empty when its folder is gone."""
        return self.states().get(model, State(model)).state

    def stubs(self, model: str) -> int:
        """Return how many stubs each version of a loaded model should have: one per instance when Python runs it."""
        config = self._config(model)
        # Triton itself sets `runtime`, to the file of the backend that it has loaded.
        if config.backend != "python" and config.runtime != "model.py":
            return 0
        return sum(group.count * max(1, len(group.gpus)) for group in config.instance_group)

    def ensembles_of(self, step: str) -> list[str]:
        """Return the loaded ensembles that a model is a step of."""
        loaded = [state.name for state in self.states().values() if state.state == READY]
        return [
            name
            for name in loaded
            if any(entry.model_name == step for entry in self._config(name).ensemble_scheduling.step)
        ]

    def load(self, model: str) -> None:
        """Load a model; for an ensemble, its steps too."""
        self._call("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name=model), LOAD_TIMEOUT_S)

    def unload(self, model: str) -> None:
        """Unload a model; the steps of an ensemble stay loaded."""
        self._call("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name=model), LOAD_TIMEOUT_S)

    def _config(self, model: str) -> Any:
        return self._call("ModelConfig", service_pb2.ModelConfigRequest(name=model), 5).config

    def _call(self, method: str, request: Any, timeout: float) -> Any:
        """Make a call; when Triton refuses it for lack of a key, find the key and try once more."""
        try:
            return self._try(method, request, timeout)
        except TritonError as error:
            if not str(error).startswith(control.RESTRICTED):
                raise
            found = control.find()
            if found in ("", self._key):
                raise TritonError(control.NEEDED) from error
            self._key = found
        try:
            return self._try(method, request, timeout)
        except TritonError as error:
            raise (TritonError(control.NEEDED) if str(error).startswith(control.RESTRICTED) else error) from error

    def _try(self, method: str, request: Any, timeout: float) -> Any:
        metadata = ((control.METADATA, self._key),) if self._key else None
        call = getattr(self._stub, method).future(request, timeout=timeout, metadata=metadata)
        while True:
            try:
                return call.result(POLL_S)
            except grpc.FutureTimeoutError:
                if self._stopping.is_set():
                    call.cancel()
            except grpc.FutureCancelledError as error:
                raise TritonError("cancelled, because modelctl is stopping") from error
            except grpc.RpcError as error:
                raise TritonError(error.details() or str(error.code())) from error
