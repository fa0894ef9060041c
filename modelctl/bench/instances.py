"""`modelctl bench instances`: measures memory, throughput and latency for several numbers of instances.

    for each round, for each count: copy the model -> start Triton -> memory -> load -> memory -> callers -> memory

For an ensemble the count applies to one step, by default the network; all calls go to the ensemble.
"""

from __future__ import annotations

import argparse
import shutil
import threading
from contextlib import closing

from modelctl.bench import copy, instances_report, quiet, sample, trial
from modelctl.bench.copy import Setting
from modelctl.bench.order import Order
from modelctl.bench.results import Machine
from modelctl.bench.trial import Trial
from modelctl.console import say
from modelctl.embedded.state import take_state
from modelctl.errors import CommandError

STEPS = ("preprocess", "network", "postprocess")
COUNTS, MAX_INSTANCES = "1,2,3,4", 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("name", metavar="NAME", help="an ensemble, or a model with numeric inputs")
    text = f"instance counts to compare; the first is the baseline (default: {COUNTS})"
    parser.add_argument("--counts", type=numbers, default=numbers(COUNTS), metavar="N,N", help=text)
    parser.add_argument(
        "--step", choices=STEPS, help="for an ensemble: the step whose instances are counted (default: network)"
    )
    text = "also vary ONNX Runtime's intra_op_thread_count (default: as configured)"
    parser.add_argument("--threads", type=numbers, metavar="N,N", help=text)


def numbers(text: str) -> tuple[int, ...]:
    """Read different whole numbers from 1 to 64; raises CommandError for any other text."""
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= MAX_INSTANCES for part in parts) or len(set(parts)) < len(parts):
        raise CommandError(
            f"'{text}' is not a list of counts: give different numbers from 1 to {MAX_INSTANCES}, such as 1,2,4."
        )
    return tuple(map(int, parts))


def run(arguments: argparse.Namespace, stopping: threading.Event) -> int:
    """Measure, print and write; return the exit code."""
    order = Order.of(arguments)
    report = instances_report.of(order, measure(order, stopping), Machine.this())
    report.publish(arguments.out, as_json=arguments.json)
    return 0


def measure(order: Order, stopping: threading.Event) -> dict[Setting, list[Trial]]:
    """Measure all settings, in rounds; every other round goes backwards.

    Raises:
        CommandError: when a server does not start, load or answer.
        Stopped: when `stopping` is set; nothing is left running.

    """
    trials: dict[Setting, list[Trial]] = {setting: [] for setting in order.settings}
    requests = sample.requests(order.models, order.model)
    with closing(take_state(order.state)):
        copied = order.state / "models"
        try:
            for number in range(order.rounds):
                for setting in order.settings[:: -1 if number % 2 else 1]:
                    quiet.wait(order.patience, stopping)
                    copy.write(order.models, order.model, order.varied, setting, copied)
                    one = trial.run(order.launch(copied), order.model, order.load, requests, stopping)
                    trials[setting].append(one)
                    say(
                        f"Round {number + 1} of {order.rounds}, {order.varied} x {setting.label}: "
                        f"{one.throughput:.1f} inferences/s, p50 {one.p50:.1f} ms, {one.used:.0f} MB; "
                        f"others kept {one.cores.others:.1f} cores busy"
                    )
        finally:
            shutil.rmtree(copied, ignore_errors=True)
    return trials
