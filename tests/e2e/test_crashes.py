"""Killed processes come back without help: Triton itself and its Python steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from living import is_alive, words


@pytest.fixture(scope="module")
def fragile(make_stack: Callable[..., Any]) -> Any:
    """Return a separate stack, to be broken: text only, with one and with two tokenizer instances by turns."""
    made = make_stack(("minilm_sentiment",), test_models=False)
    made.start()
    return made


def children(stack: Any) -> list[psutil.Process]:
    """Return every process under Triton's supervisor."""
    return psutil.Process(stack.triton.pid).children(recursive=True)


def server(stack: Any) -> psutil.Process:
    """Return the server's process."""
    return next(process for process in children(stack) if process.name() == "tritonserver")


def stubs(stack: Any, step: str) -> list[psutil.Process]:
    """Return the processes of a Python step."""
    return [
        process
        for process in children(stack)
        if len(line := words(process)) > 1 and "triton_python_backend_stub" in line[0] and step in line[1]
    ]


class Load:
    """Callers that keep sending requests, and their answers."""

    def __init__(self, stack: Any, callers: int = 4) -> None:
        self.answers: list[tuple[float, int, str, float]] = []
        self._stop = threading.Event()
        self._stack = stack
        self._threads = [threading.Thread(target=self._work) for _ in range(callers)]

    def _work(self) -> None:
        with self._stack.client() as http:
            while not self._stop.is_set():
                begun = time.monotonic()
                answer = http.post("/v1/sentiment", json={"text": "What a lovely day."})
                took = time.monotonic() - begun
                self.answers.append((time.monotonic(), answer.status_code, answer.text, took))
                time.sleep(0.02)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def served_after(load: Load, moment: float, within: float) -> float:
    """Wait until, after a failure past `moment`, a request succeeds; return the seconds since `moment`."""
    while time.monotonic() - moment < within:
        failures = [at for at, status, _, _ in load.answers if at > moment and status != 200]
        successes = [at for at, status, _, _ in load.answers if failures and at > max(failures) and status == 200]
        if len(successes) > 20:
            return successes[0] - moment
        time.sleep(0.1)
    return pytest.fail(f"not served again: {load.answers[-3:]}")


def test_a_killed_triton_comes_back(fragile: Any) -> None:
    """Callers get 503 at once, readyz turns within 2 s, all is served within 15 s, and no process is left."""
    old = server(fragile)
    old_group = children(fragile)
    old_memory = [Path("/dev/shm") / words(process)[2].lstrip("/") for process in stubs(fragile, "minilm_sentiment")]
    assert all(region.exists() for region in old_memory)
    with Load(fragile) as load, fragile.client() as http:
        time.sleep(1)
        killed = time.monotonic()
        os.kill(old.pid, signal.SIGKILL)
        while http.get("/readyz").status_code == 200:
            assert time.monotonic() - killed < 2
            time.sleep(0.05)
        assert served_after(load, killed, 30) < 15
    assert {status for _, status, _, _ in load.answers} == {200, 503}
    assert all(took < 2 for at, status, _, took in load.answers if status == 503)
    assert all('"retryable":true' in text for _, status, text, _ in load.answers if status == 503)
    assert fragile.wait_ready(15) < 15
    # What nobody waits for stays as a zombie where process 1 does not reap.
    left = [process for process in old_group if is_alive(process)]
    assert not left
    assert not [region for region in old_memory if region.exists()]


@pytest.mark.parametrize("instances", [1, 2])
def test_a_killed_step_comes_back(make_stack: Callable[..., Any], instances: int) -> None:
    """A Python step whose process is killed serves again within 15 s, even when a living twin hides its death."""
    stack = make_stack(("minilm_sentiment",), test_models=False)
    config = stack.models / "minilm_sentiment_preprocess" / "config.pbtxt"
    config.write_text(_with_instances(config.read_text(), instances))
    stack.start()
    processes = stubs(stack, "minilm_sentiment_preprocess")
    assert len(processes) == instances
    with Load(stack) as load:
        time.sleep(1)
        killed = time.monotonic()
        os.kill(processes[0].pid, signal.SIGKILL)
        assert served_after(load, killed, 30) < 15
    assert {status for at, status, _, _ in load.answers if at > killed} == {200, 503}
    assert len(stubs(stack, "minilm_sentiment_preprocess")) == instances
    assert stack.wait_ready(5) < 5
    stack.stop()


def _with_instances(config: str, count: int) -> str:
    """Return a configuration text with another number of instances."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    message = text_format.Parse(config, model_config_pb2.ModelConfig())
    del message.instance_group[:]
    message.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU, count=count)
    return str(text_format.MessageToString(message))


def test_the_gateway_is_small_and_idle(stack: Any) -> None:
    """After the loads above it holds less than 150 MB, and uses below 1% of a core at rest."""
    process = psutil.Process(stack.gateway.pid)
    assert process.memory_info().rss < 150e6

    def use() -> float:
        begun, used = time.monotonic(), sum(process.cpu_times()[:2])
        time.sleep(5)
        return float((sum(process.cpu_times()[:2]) - used) / (time.monotonic() - begun))

    assert min(use() for _ in range(3)) < 0.01, "the least, since the same work costs more beside other programs"
    httpx.get(f"{stack.url}/livez").raise_for_status()
