"""`python -m benchmarks tasks`: compares the gateway end to end with other servers and with bare processes.

    gateway with its Triton, peers, bare processes, all started once and idle
        --for each round, workload, server, number of callers--> wrk --> throughput, latency, processor time, memory

The peers, in benchmarks/peers: `proxy`, which makes a client per request and calls the same Triton; `fastapi`, the
networks inside FastAPI; `litserve`; `bentoml`; `bare`, the upper bound: one process per core, without a server.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import wrk
from benchmarks.stack import QUIET, Stack
from benchmarks.tasks import facts, report, workload
from benchmarks.tasks.bare import Bare
from benchmarks.tasks.peers import PEERS, Running, ask
from benchmarks.tasks.workload import Workload
from modelctl.bench import memory, quiet
from modelctl.bench.results import Machine
from modelctl.console import say
from modelctl.embedded import processes
from modelctl.embedded.state import take_state
from modelctl.errors import CommandError

ROUNDS = 3
CALLERS, QUICK_CALLERS, QUICK_SECONDS = (1, 8, 32), (8,), 1.0
MAX_CALLERS, MAX_LOAD_S = 512, 60.0
SETTLE_S, LOOK_S, IDLE_CORES = 10.0, 0.1, 0.2
GATEWAY, BARE = "gateway", "bare"


@dataclass(frozen=True)
class Order:
    """The order given on the command line.

    Attributes:
        workloads: names of the requests to send.
        peers: names of the servers to compare with.
        callers: numbers of concurrent requests.
        seconds: load for each of them; see `window`.
        warm_up: seconds of load that do not count, before each server's turn.
        patience: longest wait in seconds for an idle machine before each workload.

    """

    models: Path
    backends: Path
    state: Path
    workloads: tuple[str, ...]
    peers: tuple[str, ...]
    callers: tuple[int, ...]
    seconds: float
    rounds: int
    warm_up: float
    patience: float

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Order:
        """Return the order of the command line."""
        quick = arguments.quick
        return cls(
            models=arguments.models,
            backends=arguments.backends,
            state=arguments.state,
            workloads=tuple(
                name for name in (workload.QUICK if quick else workload.NAMES) if name.split()[0] in arguments.tasks
            ),
            peers=arguments.peers,
            callers=arguments.callers or (QUICK_CALLERS if quick else CALLERS),
            seconds=QUICK_SECONDS if quick else arguments.seconds,
            rounds=arguments.rounds,
            warm_up=0.0 if quick else 1.0,
            patience=arguments.patience,
        )

    def window(self, work: Workload) -> float:
        """Return the seconds of load of a workload: twice as many for the slow detector.

        Requests still running at the end are lost, and a server that batches has more of them.
        """
        return self.seconds * (2 if work.task == "detect" else 1)

    @property
    def command(self) -> str:
        """The command line that repeats it."""
        tasks = tuple(dict.fromkeys(name.split()[0] for name in self.workloads))
        return " ".join(
            [
                "python -m benchmarks tasks",
                *([f"--tasks {','.join(tasks)}"] if tasks != workload.TASKS else []),
                *([f"--peers {','.join(self.peers)}"] if self.peers != NAMES else []),
                f"--callers {','.join(map(str, self.callers))} --seconds {self.seconds:g} --rounds {self.rounds}",
            ]
        )


NAMES = (*PEERS, BARE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement, and redefine shared ones that differ here."""
    text = f"tasks to measure (default: all, {','.join(workload.TASKS)})"
    parser.add_argument("--tasks", type=_choice(workload.TASKS), default=workload.TASKS, metavar="NAME,NAME", help=text)
    text = f"peers to compare with (default: all, {','.join(NAMES)})"
    parser.add_argument("--peers", type=_choice(NAMES), default=NAMES, metavar="NAME,NAME", help=text)
    text = f"concurrent requests (default: {','.join(map(str, CALLERS))}; with --quick 8)"
    parser.add_argument("--callers", type=_callers, metavar="N,N", help=text)
    parser.set_defaults(rounds=ROUNDS)


def _choice(names: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        asked = text.split(",")
        if not set(asked) <= set(names):
            raise CommandError(f"'{text}' is not a list of names: give some of {', '.join(names)}.")
        return tuple(name for name in names if name in asked)

    return read


def _callers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= MAX_CALLERS for part in parts):
        raise CommandError(f"'{text}' is not a list of callers: give numbers from 1 to {MAX_CALLERS}, such as 1,8,32.")
    return tuple(sorted({int(part) for part in parts}))


def run(arguments: argparse.Namespace, stopping: threading.Event) -> int:
    """Measure, print and write; return the exit code."""
    wrk.find()
    order = Order.of(arguments)
    rounds, extra = measure(order, stopping)
    made = report.of(order.command, order.workloads, order.callers, rounds, extra, Machine.this())
    made.publish(arguments.out, as_json=arguments.json)
    return 0


Rounds = dict[tuple[str, str, int], list[dict[str, float]]]
"""Workload, server, callers (0: none, in bare processes) -> rounds -> metric -> value."""


def measure(order: Order, stopping: threading.Event) -> tuple[Rounds, dict[str, object]]:
    """Start everything and measure in rounds, every other one in reverse; return the figures and further facts.

    Raises:
        CommandError: when a server does not start or answer, or its answers differ from the gateway's.
        Stopped: when `stopping` is set; nothing is left running.

    """
    measured: Rounds = {}
    with closing(take_state(order.state)), ExitStack() as cleanup:
        servers = Servers(order, stopping, cleanup)
        for number in range(order.rounds):
            for work in servers.workloads:
                quiet.wait(order.patience, stopping)
                for name in servers.names[:: -1 if number % 2 else 1]:
                    for callers, figures in servers.turn(name, work):
                        measured.setdefault((work.name, name, callers), []).append(figures)
                        say(
                            f"Round {number + 1} of {order.rounds}, {work.name}, {name}"
                            f"{f', {callers} callers' if callers else ''}: {figures['throughput']:.1f} a second"
                        )
        return measured, {"gateway_worker_mb": round(memory.pss(servers.stack.gateway_group), 1)}


class Servers:
    """All measured servers, started, with answers that agree."""

    def __init__(self, order: Order, stopping: threading.Event, cleanup: ExitStack) -> None:
        self._order, self._stopping = order, stopping
        self.workloads = workload.write(order.state, list(order.workloads))
        tasks = list(dict.fromkeys(work.task for work in self.workloads))
        chosen = [model.name for task, model in facts.defaults(order.models).items() if task in tasks]
        options = ("--model", *chosen)
        self.stack = Stack(order.state / "stack", order.models, order.backends, QUIET, options, stopping=stopping)
        file = (order.state / "facts.json").absolute()
        facts.write(file, order.models, tasks, self.stack.address)
        self._running: dict[str, Running] = {}
        self._bare: Bare | None = None
        for peer in (PEERS[name] for name in order.peers if name != BARE):
            peer.python(order.state)
            self._running[peer.name] = Running(peer, order.state, file)
            cleanup.callback(self._running[peer.name].stop)
        if BARE in order.peers:
            self._bare = Bare(order.state, file)
            cleanup.callback(self._bare.stop)
        cleanup.enter_context(self.stack)
        cleanup.callback(self._ask_to_stop)
        self._check()
        self.names = [GATEWAY, *self._running, *([BARE] if self._bare else [])]

    def turn(self, name: str, work: Workload) -> Iterator[tuple[int, dict[str, float]]]:
        """Measure one server with one workload; yield the figures for each number of callers."""
        if name == BARE and self._bare is not None:
            yield 0, self._bare.measure(work, self._order.window(work), self._stopping)
            return
        peer = self._running.get(name)
        if peer is None:
            yield from self._callers(self.stack.url, self.stack.groups, work)
            return
        peer.resume()
        groups = peer.groups if name != "proxy" else (*peer.groups, *self.stack.groups[1:])
        yield from self._callers(peer.url, groups, work)
        peer.check(self._stopping)
        peer.halt()

    def _ask_to_stop(self) -> None:
        """Ask all peers to stop at once; the clean-up waits for each of them."""
        for peer in self._running.values():
            peer.ask_to_stop()

    def _check(self) -> None:
        """Compare each peer's answers with the gateway's, and halt it."""
        answers = [ask(self.stack.url, work) for work in self.workloads]
        for work, answer in zip(self.workloads, answers, strict=True):
            if answer is None:
                raise CommandError(f"The gateway does not answer {work.name}: read the logs in {self.stack.folder}.")
        for peer in self._running.values():
            peer.wait(self.workloads, answers, self._stopping)
            peer.halt()
        if self._bare is not None:
            self._bare.wait(self.workloads, answers, self._stopping)

    def _callers(self, url: str, groups: tuple[int, ...], work: Workload) -> Iterator[tuple[int, dict[str, float]]]:
        url += work.path
        if self._order.warm_up:
            wrk.run(url, max(self._order.callers), self._order.warm_up, work.body, work.headers, self._stopping)
            self._settle(groups)
        for callers in self._order.callers:
            yield callers, self._load(url, groups, work, callers, self._order.window(work))

    def _settle(self, groups: tuple[int, ...]) -> None:
        """Wait until a server has finished the abandoned requests, which would slow the next measurement."""
        for _ in range(int(SETTLE_S / LOOK_S)):
            before = sum(map(processes.processor_seconds, groups))
            self._stopping.wait(LOOK_S)
            if sum(map(processes.processor_seconds, groups)) - before <= IDLE_CORES * LOOK_S:
                return

    def _load(
        self, url: str, groups: tuple[int, ...], work: Workload, callers: int, seconds: float
    ) -> dict[str, float]:
        before = sum(map(processes.processor_seconds, groups))
        found = wrk.run(url, callers, seconds, work.body, work.headers, self._stopping)
        self.stack.check()
        cpu = sum(map(processes.processor_seconds, groups)) - before
        self._settle(groups)
        if not found.answers:  # a slow server on a busy machine may need more time
            if seconds >= MAX_LOAD_S:
                raise CommandError(f"{url} answered nothing in {seconds:g} s: {found.errors} errors.")
            return self._load(url, groups, work, callers, min(4 * seconds, MAX_LOAD_S))
        return {
            "throughput": found.throughput,
            "p50": found.p50_ms,
            "p99": found.p99_ms,
            "errors": float(found.errors),
            "cpu": 1e3 * cpu / found.answers,
            "memory": sum(memory.host(group).mb for group in groups),
        }
