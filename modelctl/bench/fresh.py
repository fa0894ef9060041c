"""A fresh Triton for one measurement: started without models on free ports, loaded, and stopped with its stubs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from modelctl.bench import memory
from modelctl.bench.load import Answered, Grpc, Load
from modelctl.embedded.server import Launch, Server
from modelctl.embedded.state import StateFolder
from modelctl.embedded.triton import READY, Triton, TritonError
from modelctl.errors import CommandError
from modelctl.models.repository import Model
from modelctl.plans import choice

START_S = 60
METRICS_MS = 250
EXTRA = (f"--metrics-interval-ms={METRICS_MS}",)


class Stopped(Exception):  # noqa: N818 - not an error: the operator asked for it
    """The command was told to stop."""


class Fresh:
    """One Triton. Methods that wait for it raise Stopped when `stopping` is set.

    Nothing repairs it: a measurement during which a process dies is not valid.
    """

    def __init__(self, launch: Launch, model: Model, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._model = model
        chosen = choice.choose(launch.models, [model.name, *model.steps], choice.this_machine())
        variant = choice.VARIANT if chosen.plans else None
        self.networks = "TensorRT plans" if chosen.plans else "ONNX"
        """What networks run as, chosen as `modelctl serve` does."""
        self._log = launch.state / "triton.log"
        self._metrics = launch.ports.metrics
        self.target = f"{launch.host}:{launch.ports.grpc}"
        self._state = StateFolder(launch.state)
        self._server = Server(replace(launch, variant=variant, extra=(*launch.extra, *EXTRA)), self._state)
        self._triton = Triton(self.target, stopping, launch.key)

    def __enter__(self) -> Self:
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and its stubs, and remove their shared memory."""
        self._triton.close()
        self._server.stop()
        self._state.close()

    def load(self) -> None:
        """Load the model with its steps.

        Raises:
            CommandError: with Triton's reason.
            Stopped: when told to stop meanwhile.

        """
        try:
            self._triton.load(self._model.name)
            ready = self._triton.state(self._model.name) == READY
        except TritonError as error:
            self._check()
            raise CommandError(f"Triton does not load {self._model.name}: {str(error)[:500]}") from error
        if not ready:
            raise CommandError(f"{self._model.name} did not become ready: read {self._log}.")
        self._server.stubs()  # the server remembers their shared memory

    def ask(self, load: Load, requests: Sequence[bytes]) -> Answered:
        """Put a load on it; raises as Load.run does, and Stopped when told to stop meanwhile."""
        answered = load.run(Grpc(self.target, requests), self._server.group, self._stopping)
        self._check()
        return answered

    def memory(self) -> memory.Host:
        """Return the host memory of server and stubs."""
        self._check()
        return memory.host(self._server.group)

    def gpu_memory(self) -> float | None:
        """Return the GPU memory in use in MB; None without a GPU."""
        used = self._gpu_now()
        if used is None:
            return None
        # Triton's metrics may be as old as their interval.
        self._stopping.wait(2 * METRICS_MS / 1e3)
        return self._gpu_now()

    def _gpu_now(self) -> float | None:
        self._check()
        return memory.gpu(memory.metrics(self._metrics) or "")

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        # Triton serves metrics a moment later than gRPC.
        while not self._triton.is_live() or memory.metrics(self._metrics) is None:
            self._check()
            if time.monotonic() > deadline:
                raise CommandError(f"Triton did not start in {START_S} s: read {self._log}.")
            self._stopping.wait(0.05)

    def _check(self) -> None:
        """Raise Stopped when told to stop, and CommandError when the server has ended by itself."""
        if self._stopping.is_set():
            raise Stopped
        if not self._server.is_alive():
            raise CommandError(f"Triton ended by itself: read {self._log}.")
