"""`python -m benchmarks gateway`: the cost of the gateway in front of a light model, against Triton called directly.

    light model (light.py) <-- Triton <-- direct: perf_analyzer, over gRPC
                                      <-- gateway: wrk, over HTTP, one item per call to Triton
                                      <-- joined: wrk, over HTTP, waiting texts are coalesced

Each round measures each number of callers in all three ways, one after the other.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks import light
from benchmarks.gateway import report
from benchmarks.gateway.report import DIRECT, GATEWAY, JOINED, WAYS
from benchmarks.load import wrk
from benchmarks.load.perf_analyzer import PerfAnalyzer
from benchmarks.stack import Stack
from modelctl.bench import memory, quiet
from modelctl.bench.reading import number, numbers, whole
from modelctl.bench.results import Machine
from modelctl.console import say
from modelctl.embedded import installation, processes
from modelctl.embedded.state import take_state
from modelctl.embedded.triton import Triton
from modelctl.errors import CommandError

CALLERS = (1, 8, 32, 128)
QUICK_CALLERS = (1, 8)
SECONDS, ROUNDS, PATIENCE_S = 6.0, 5, 30.0
TEXT = "I love this camera."
# As in docker-compose.yml: a log line per request.
SETTINGS = {"GATEWAY_LOG_LEVEL": "info", "GATEWAY_LOG_FORMAT": "json"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement, and redefine shared ones that differ here."""
    text = f"concurrent requests (default: {','.join(map(str, CALLERS))})"
    parser.add_argument("--callers", type=numbers(1, 128), metavar="N,N", help=text)
    text = f"seconds of load for each way and number of callers in each round (default: {SECONDS:g})"
    parser.add_argument("--seconds", type=number(1, 3600), default=SECONDS, help=text)
    parser.add_argument("--rounds", type=whole(1, 100), default=ROUNDS, help=f"number of rounds (default: {ROUNDS})")
    parser.add_argument("--workers", type=whole(1, 64), default=1, help="processes of the gateway (default: 1)")
    for option in ("--models", "--backends"):
        parser.add_argument(option, type=_refused, help=argparse.SUPPRESS)


def _refused(_: str) -> None:
    raise CommandError("benchmarks gateway makes its own model: leave out --models and --backends.")


def run(arguments: argparse.Namespace, stopping: threading.Event) -> int:
    """Measure, print and write; return the exit code."""
    callers = arguments.callers or (QUICK_CALLERS if arguments.quick else CALLERS)
    wrk.find()
    rounds, resident = measure(arguments, callers, stopping)
    command = (
        f"python -m benchmarks gateway --callers {','.join(map(str, callers))} --seconds {arguments.seconds:g} "
        f"--rounds {arguments.rounds} --workers {arguments.workers}"
    )
    made = report.of(command, callers, rounds, resident, arguments.workers, Machine.this())
    made.publish(arguments.out, as_json=arguments.json)
    return 0


def measure(
    arguments: argparse.Namespace, callers: tuple[int, ...], stopping: threading.Event
) -> tuple[report.Measured, float]:
    """Return the figures of all rounds, and the memory of one worker after them, in MB.

    Raises:
        CommandError: when something cannot be started, or fails under load.
        Stopped: when `stopping` is set; nothing is left running.

    """
    rounds: report.Measured = {(way, count): [] for count in callers for way in WAYS}
    folder = arguments.state / "gateway"
    with closing(take_state(arguments.state)):
        analyzer = PerfAnalyzer(arguments.state, installation.find().libraries)
        shutil.rmtree(folder, ignore_errors=True)
        light.write(folder, 1, 0)
        body = folder / "body.json"
        body.write_text(json.dumps({"text": TEXT}))
        try:
            with ExitStack() as running:
                stacks = {
                    way: running.enter_context(_stack(folder, way, arguments.workers, stopping))
                    for way in (GATEWAY, JOINED)
                }
                for turn in range(arguments.rounds):
                    for way, count in list(rounds)[:: -1 if turn % 2 else 1]:
                        quiet.wait(arguments.patience, stopping)
                        one = (
                            _direct(analyzer, stacks[GATEWAY], count, arguments.seconds, stopping)
                            if way == DIRECT
                            else _through(stacks[way], body, count, arguments.seconds, stopping)
                        )
                        rounds[way, count].append(one)
                        say(
                            f"Round {turn + 1} of {arguments.rounds}, {way}@{count}: {one['throughput']:.0f} "
                            f"requests/s, p50 {one['p50']:.2f} ms; others kept {one['cores_others']:.1f} cores busy"
                        )
                resident = _worker_mb(stacks[JOINED])
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return rounds, resident


def _stack(folder: Path, way: str, workers: int, stopping: threading.Event) -> Stack:
    settings = {**SETTINGS, "GATEWAY_WORKERS": str(workers), "GATEWAY_JOIN_ITEMS": str(way == JOINED).lower()}
    return Stack(folder / way, folder / "models", folder / "backends", settings, stopping=stopping)


def _direct(
    analyzer: PerfAnalyzer, stack: Stack, callers: int, seconds: float, stopping: threading.Event
) -> dict[str, float]:
    spent = _Spent(stack)
    found = analyzer.run(stack.address, light.TEXT, {"text": TEXT}, callers, seconds, stopping)
    stack.check()
    return {"throughput": found.throughput, "p50": found.p50_ms, "p99": found.p99_ms, **spent.per_request()}


def _through(stack: Stack, body: Path, callers: int, seconds: float, stopping: threading.Event) -> dict[str, float]:
    spent = _Spent(stack)
    found = wrk.run(f"{stack.url}/v1/sentiment", callers, seconds, body, {"Content-Type": "application/json"}, stopping)
    stack.check()
    if found.errors:
        raise CommandError(f"{found.errors} requests failed at {callers} callers: read {stack.folder}/gateway.out.")
    return {"throughput": found.throughput, "p50": found.p50_ms, "p99": found.p99_ms, **spent.per_request()}


class _Spent:
    """Processor time since it was made: of gateway, Triton, load generator, and all other programs."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._begun, self._before = time.monotonic(), self._now()
        self._inferences = inferences(stack)

    def _now(self) -> list[float]:
        gateway, triton = (processes.processor_seconds(group) for group in self._groups())
        load = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = load.ru_utime + load.ru_stime + time.process_time()
        return [gateway, triton, own, processes.machine_seconds() - gateway - triton - own]

    def _groups(self) -> tuple[int, int]:
        return self._stack.gateway_group, self._stack.triton_group

    def per_request(self) -> dict[str, float]:
        """Return CPU milliseconds per inference of gateway, Triton and load generator, and cores busy with others."""
        seconds = time.monotonic() - self._begun
        gateway, triton, load, others = (now - before for now, before in zip(self._now(), self._before, strict=True))
        count = max(1, inferences(self._stack) - self._inferences)
        return {
            "gateway_ms": 1e3 * gateway / count,
            "triton_ms": 1e3 * triton / count,
            "load_ms": 1e3 * load / count,
            "cores_others": max(0.0, others / seconds),
        }


def inferences(stack: Stack) -> int:
    """Return the number of items that the light model has answered, as Triton counts them."""
    triton = Triton(stack.address)
    with closing(triton):
        return triton.inferences(light.TEXT)


def _worker_mb(stack: Stack) -> float:
    """Return the memory of the largest process of the gateway, in MB."""
    return max(memory.pss(pid) for pid in processes.living(stack.gateway_group))
