"""`modelctl bench sweep`: finds the batch size, number of instances and queue delay that serve a model best.

    every setting x callers, two short looks --> Pareto front of throughput and p99
    --> points near it, in rounds --> the front again --> the fastest point within a bound of p99 --> model.yaml

The settings of a tensor model vary, or for an ensemble those of its network; all calls go to the ensemble.
"""

from __future__ import annotations

import argparse
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from modelctl.bench import apply, copy, front, quiet, sample, sweep_order, sweep_report, trial
from modelctl.bench.copy import Setting
from modelctl.bench.front import Point
from modelctl.bench.reading import number, numbers
from modelctl.bench.results import Machine
from modelctl.bench.sweep_order import MAX_REPEATED, Sweep
from modelctl.bench.trial import Trial
from modelctl.console import say
from modelctl.embedded.state import take_state
from modelctl.errors import CommandError

SECONDS, SCREEN_S, PATIENCE_S, MINUTES = 3.0, 1.0, 5.0, 20.0
MAX_DELAY_US = 1_000_000
NEAR = 0.1
"""Settings within this fraction of the best in the short passes are measured again in full."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement, and redefine shared ones that differ here."""
    parser.add_argument("name", metavar="NAME", help="an ensemble, or a model with numeric inputs")
    for option, what, values, most in (
        ("--batch-sizes", "values of max_batch_size, for all steps", sweep_order.BATCHES, 1024),
        ("--instances", "instance counts of the network", sweep_order.INSTANCES, 64),
        (
            "--delays",
            "queue delays in microseconds: how long a request may wait to be batched",
            sweep_order.DELAYS,
            MAX_DELAY_US,
        ),
        ("--callers", "numbers of concurrent calls", sweep_order.CALLERS, 1024),
    ):
        text = f"{what} (default: {','.join(map(str, values))}; fewer with --quick)"
        least = 0 if option == "--delays" else 1
        parser.add_argument(option, type=numbers(least, most), metavar="N,N", help=text)
    text = f"seconds of load for each setting and number of callers in each round (default: {SECONDS:g})"
    parser.add_argument("--seconds", type=number(0.1, 3600), default=SECONDS, help=text)
    text = f"seconds of load for each setting in the two first, short passes over all settings (default: {SCREEN_S:g})"
    parser.add_argument("--screen", type=number(0.1, 3600), default=SCREEN_S, metavar="SECONDS", help=text)
    text = f"longest wait in seconds for an idle machine before each measurement (default: {PATIENCE_S:g})"
    parser.add_argument("--patience", type=number(0, 3600), default=PATIENCE_S, metavar="SECONDS", help=text)
    text = "highest p99 latency of a recommended setting (default: twice that of the fewest callers, as configured)"
    parser.add_argument("--p99-ms", type=number(0.001, 1e6), metavar="MS", help=text)
    text = f"do not start a sweep that would take more minutes than this (default: {MINUTES:g})"
    parser.add_argument("--minutes", type=number(0.1, 1e4), default=MINUTES, help=text)
    parser.add_argument(
        "--apply", action="store_true", help="write the recommended setting into model.yaml and render it"
    )


def run(arguments: argparse.Namespace, stopping: threading.Event) -> int:
    """Measure, print, write, and apply where that is asked for; return the exit code."""
    order = Sweep.of(arguments)
    _announce(order, arguments.minutes)
    swept = measure(order, stopping)
    report, choice = sweep_report.of(order, swept.screened, swept.repeated, Machine.this())
    if arguments.apply:
        if choice is None:
            report.write(arguments.out)
            raise CommandError(f"Nothing is recommended, so {order.model.name} stays as it is: give a higher --p99-ms.")
        apply.write(order.models, order.model.name, apply.changes(choice.setting, plans=order.with_plans))
        say(f"{order.model.name} is set to {choice.server}: load it with modelctl load {order.model.name}.")
    report.publish(arguments.out, as_json=arguments.json)
    return 0


@dataclass(frozen=True)
class Swept:
    """The measurements: all points in short looks, then some of them in rounds."""

    screened: Mapping[Point, Sequence[Trial]]
    repeated: Mapping[Point, Sequence[Trial]]


def measure(order: Sweep, stopping: threading.Event) -> Swept:
    """Look at all points, then measure those near the front in rounds; every other look and round goes backwards.

    Raises:
        CommandError: when a server does not start, load or answer.
        Stopped: when `stopping` is set; nothing is left running.

    """
    requests = sample.requests(order.models, order.model)
    copied = order.state / "models"
    screened: dict[Point, list[Trial]] = {point: [] for point in order.points}

    def turn(setting: Setting, callers: Sequence[int], seconds: float, name: str) -> dict[Point, Trial]:
        quiet.wait(order.patience, stopping)
        copy.write(order.models, order.model, order.varied, setting, copied)
        loads = [order.load(each, seconds) for each in callers]
        made = trial.each(order.launch(copied), order.model, loads, requests, stopping)
        points = {Point(setting, each): one for each, one in zip(callers, made, strict=True)}
        for point, one in points.items():
            say(f"{name}, {point.label}: {one.throughput:.1f} inferences/s, p99 {one.p99:.1f} ms")
        return points

    with closing(take_state(order.state)):
        try:
            for count in range(order.looks):
                for setting in order.settings[:: -1 if count % 2 else 1]:
                    name = f"Look {count + 1} of {order.looks}"
                    for point, one in turn(setting, order.callers, order.screen, name).items():
                        screened[point].append(one)
            again = worth_repeating(order, screened)
            servers = list(dict.fromkeys(point.setting for point in again))
            repeated: dict[Point, list[Trial]] = {point: [] for point in again}
            for count in range(order.rounds):
                for setting in servers[:: -1 if count % 2 else 1]:
                    callers = [point.callers for point in again if point.setting == setting]
                    name = f"Round {count + 1} of {order.rounds}"
                    for point, one in turn(setting, callers, order.seconds, name).items():
                        repeated[point].append(one)
        finally:
            shutil.rmtree(copied, ignore_errors=True)
    return Swept(screened, repeated)


def worth_repeating(order: Sweep, screened: Mapping[Point, Sequence[Trial]]) -> list[Point]:
    """Return the points near the front, and their baselines: the configured setting under the same callers."""
    figures = {point: sweep_report.best_of(looks) for point, looks in screened.items()}
    near = front.thinned(front.front(figures, NEAR), MAX_REPEATED)
    configured = [point.with_setting(order.settings[0]) for point in near]
    return list(dict.fromkeys([order.least, *sorted(configured, key=lambda point: point.callers), *near]))


def _announce(order: Sweep, minutes: float) -> None:
    """Print how long the sweep will take; raises CommandError when that is longer than `minutes`."""
    estimate = order.estimate_s / 60
    if estimate > minutes:
        raise CommandError(
            f"{len(order.points)} points would take about {estimate:.0f} minutes: "
            "give fewer values, or a higher --minutes."
        )
    turns = len(order.settings) * (order.looks + order.rounds)
    wait = (
        f", and at most {turns * order.patience / 60:.0f} more of waiting for an idle machine" if order.patience else ""
    )
    say(
        f"{len(order.settings)} settings x {len(order.callers)} numbers of callers; "
        f"at most about {estimate:.1f} minutes{wait}."
    )
