"""One setting, measured once: memory before and after, and a load in between."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelctl.bench.fresh import Fresh
from modelctl.bench.load import Cores, Load
from modelctl.bench.memory import Step
from modelctl.embedded.server import Launch
from modelctl.models.repository import Model


@dataclass(frozen=True)
class Trial:
    """One setting, measured once. Memory is in MB, and does not include that of the server without models.

    Attributes:
        throughput: inferences per second.
        p50: milliseconds, as p99.
        server: memory of the server without models.
        loaded: memory of the model with its steps, before its first call.
        used: the same, after the load.
        gpu: increase of the memory in use on all GPUs, by any program; None without a GPU.
        steps: the processes of each Python-run step, after the load.
        networks: what networks ran as: ONNX or TensorRT plans.

    """

    throughput: float
    p50: float
    p99: float
    cores: Cores
    server: float
    loaded: float
    used: float
    gpu: float | None
    steps: Mapping[str, Step]
    networks: str

    def metrics(self) -> dict[str, float]:
        """Return the figures by their names in the results."""
        made = {
            "throughput": self.throughput,
            "p50": self.p50,
            "p99": self.p99,
            "memory": self.used,
            "memory_loaded": self.loaded,
            "memory_server": self.server,
            "cpu": 1e3 * self.cores.server / self.throughput,
            "cores_server": self.cores.server,
            "cores_client": self.cores.client,
            "cores_others": self.cores.others,
        }
        return made if self.gpu is None else {**made, "gpu_memory": self.gpu}


def run(launch: Launch, model: Model, load: Load, requests: Sequence[bytes], stopping: threading.Event) -> Trial:
    """Start a Triton, load the model and put the load on it; raises as `each` does."""
    (one,) = each(launch, model, [load], requests, stopping)
    return one


def each(
    launch: Launch, model: Model, loads: Sequence[Load], requests: Sequence[bytes], stopping: threading.Event
) -> list[Trial]:
    """Start a Triton, load the model and put the loads on it, one after the other.

    Raises:
        CommandError: when the server does not start, load or answer.
        Stopped: when `stopping` is set; nothing is left running.

    """
    trials = []
    with Fresh(launch, model, stopping) as triton:
        empty, gpu = triton.memory(), triton.gpu_memory()
        triton.load()
        loaded = triton.memory()
        for load in loads:
            answered = triton.ask(load, requests)
            used, gpu_used = triton.memory(), triton.gpu_memory()
            trials.append(
                Trial(
                    throughput=answered.throughput,
                    p50=answered.percentile(50),
                    p99=answered.percentile(99),
                    cores=answered.cores,
                    server=empty.mb,
                    loaded=loaded.mb - empty.mb,
                    used=used.mb - empty.mb,
                    gpu=None if gpu is None or gpu_used is None else gpu_used - gpu,
                    steps=used.steps,
                    networks=triton.networks,
                )
            )
    return trials
