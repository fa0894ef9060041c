"""`python -m benchmarks tasks`: the gateway end to end, against other servers and against no server.

    gateway with its Triton, peers, bare processes, all started once and idle
        --for each round, workload, server, number of callers--> wrk --> throughput, latency, processor time, memory

The peers, whose code is in benchmarks/peers: `proxy`, a client for each request before the same Triton; `fastapi`, the
networks inside FastAPI; `litserve`; `bentoml`; `bare`, the limit: a process a core, without any server.
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
from modelctl.bench.fresh import Stopped
from modelctl.bench.results import Machine
from modelctl.console import say
from modelctl.embedded import processes
from modelctl.embedded.server import on_stop
from modelctl.embedded.state import take_state
from modelctl.errors import CommandError

ROUNDS = 3
CALLERS, QUICK_CALLERS, QUICK_SECONDS = (1, 8, 32), (8,), 1.0
MOST_CALLERS, LONGEST_S = 512, 60.0
SETTLE_S, LOOK_S, IDLE_CORES = 10.0, 0.1, 0.2
GATEWAY, BARE = "gateway", "bare"
STOPPED = 130  # as a shell says of a command that Ctrl-C ended


@dataclass(frozen=True)
class Order:
    """What the command line asks for.

    Attributes:
        workloads: the names of what is sent.
        peers: the names of what the gateway is compared with.
        callers: numbers of requests under way at once.
        seconds: of load, for each; see `window`.
        warm_up: seconds of load that do not count, before each server's turn.
        patience: how many seconds each turn waits for a quiet machine.

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
        """Return what the command line asks for."""
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
        """Return the seconds of load of a workload: twice as many where few are answered in a second.

        What is under way when the time is over is lost, and of a server that batches that is more.
        """
        return self.seconds * (2 if work.task == "detect" else 1)

    @property
    def command(self) -> str:
        """The command line that repeats it on any machine."""
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
    """Declare the options that only this measurement has, or has in its own way."""
    text = f"which tasks (default: all, {','.join(workload.TASKS)})"
    parser.add_argument("--tasks", type=_choice(workload.TASKS), default=workload.TASKS, metavar="NAME,NAME", help=text)
    text = f"which peers to compare with (default: all, {','.join(NAMES)})"
    parser.add_argument("--peers", type=_choice(NAMES), default=NAMES, metavar="NAME,NAME", help=text)
    text = f"requests under way at once (default: {','.join(map(str, CALLERS))}; with --quick 8)"
    parser.add_argument("--callers", type=_callers, metavar="N,N", help=text)
    parser.set_defaults(rounds=ROUNDS)


def _choice(names: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        asked = text.split(",")
        if not set(asked) <= set(names):
            raise CommandError(f"'{text}' names something else than {', '.join(names)}.")
        return tuple(name for name in names if name in asked)

    return read


def _callers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= MOST_CALLERS for part in parts):
        raise CommandError(f"'{text}' are no numbers of callers: give some from 1 to {MOST_CALLERS}, such as 1,8,32.")
    return tuple(sorted({int(part) for part in parts}))


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write; return the exit code."""
    stopping = threading.Event()
    on_stop(stopping.set)
    wrk.find()
    try:
        order = Order.of(arguments)
        rounds, extra = measure(order, stopping)
        made = report.of(order.command, order.workloads, order.callers, rounds, extra, Machine.this())
    except Stopped:
        say("Stopped: nothing is left running, and nothing was written.")
        return STOPPED
    made.publish(arguments.out, as_json=arguments.json)
    return 0


Rounds = dict[tuple[str, str, int], list[dict[str, float]]]
"""Workload, server, callers (0: none, in bare processes) -> rounds -> metric -> value."""


def measure(order: Order, stopping: threading.Event) -> tuple[Rounds, dict[str, object]]:
    """Start everything, and measure in rounds, every other one backwards; return the figures, and more facts.

    Raises:
        CommandError: when something does not start or answer, or does another job than the gateway.
        Stopped: when `stopping` is set; nothing is left running.

    """
    measured: Rounds = {}
    with closing(take_state(order.state)), ExitStack() as cleanup:
        stand = Stand(order, stopping, cleanup)
        for number in range(order.rounds):
            for work in stand.workloads:
                quiet.wait(order.patience, stopping)
                for name in stand.names[:: -1 if number % 2 else 1]:
                    for callers, figures in stand.turn(name, work):
                        measured.setdefault((work.name, name, callers), []).append(figures)
                        say(
                            f"Round {number + 1} of {order.rounds}, {work.name}, {name}"
                            f"{f', {callers} callers' if callers else ''}: {figures['throughput']:.1f} a second"
                        )
        return measured, {"gateway_worker_mb": round(memory.pss(stand.stack.gateway_group), 1)}


class Stand:
    """Everything that is measured, started and checked to do the same job."""

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
        """Measure one server with one workload; give the figures for each number of callers."""
        if name == BARE and self._bare is not None:
            yield 0, self._bare.measure(work, self._order.window(work), self._stopping)
            return
        peer = self._running.get(name)
        if peer is None:
            yield from self._callers(self.stack.url, self.stack.groups, work)
            return
        peer.go_on()
        groups = peer.groups if name != "proxy" else (*peer.groups, *self.stack.groups[1:])
        yield from self._callers(peer.url, groups, work)
        peer.check(self._stopping)
        peer.halt()

    def _ask_to_stop(self) -> None:
        """Let all stop at the same time; each is waited for after that."""
        for peer in self._running.values():
            peer.ask_to_stop()

    def _check(self) -> None:
        """Hold every peer's answers against the gateway's, and halt it."""
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
        """Wait until a server has done what callers gave up when their time was over: it would hurt who is next."""
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
        if not found.answers:  # of a slow server on a busy machine, none may have come in time
            if seconds >= LONGEST_S:
                raise CommandError(f"{url} answered nothing in {seconds:g} s: {found.errors} errors.")
            return self._load(url, groups, work, callers, min(4 * seconds, LONGEST_S))
        return {
            "throughput": found.throughput,
            "p50": found.p50_ms,
            "p99": found.p99_ms,
            "errors": float(found.errors),
            "cpu": 1e3 * cpu / found.answers,
            "memory": sum(memory.host(group).mb for group in groups),
        }
