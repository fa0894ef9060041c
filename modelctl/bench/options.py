"""Options that all measurements share; `modelctl bench` and `python -m benchmarks` both declare them."""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from modelctl.bench.fresh import Stopped
from modelctl.bench.load import CALLERS
from modelctl.console import say
from modelctl.embedded.server import on_stop
from modelctl.errors import CommandError

SECONDS, ROUNDS, PATIENCE_S = 8.0, 2, 30.0
QUICK_SECONDS, QUICK_ROUNDS = 2.0, 1
RESULTS = Path("benchmarks/results")
STOPPED = 130  # the exit code that shells give a command ended by Ctrl-C


def add_measurements(parser: argparse.ArgumentParser, measurements: Mapping[str, tuple[ModuleType, str]]) -> None:
    """Declare one subcommand for each measurement.

    Args:
        parser: of the command.
        measurements: name -> a module with `add_arguments` and `run(arguments, stopping)`, and one line of help.

    """
    subparsers = parser.add_subparsers(required=True, metavar="MEASUREMENT")
    for name, (module, text) in measurements.items():
        description = f"{text[:1].upper()}{text[1:]}."
        # A measurement may redefine a shared option.
        measurement = subparsers.add_parser(name, help=text, description=description, conflict_handler="resolve")
        _add_common(measurement)
        module.add_arguments(measurement)
        measurement.set_defaults(measure=module.run)


def run(arguments: argparse.Namespace) -> int:
    """Measure until told to stop; return the exit code."""
    if arguments.quick:
        arguments.seconds, arguments.rounds, arguments.patience = QUICK_SECONDS, QUICK_ROUNDS, 0.0
    if arguments.out is None:
        arguments.out = Path(tempfile.mkdtemp(prefix="bench-")) if arguments.quick else RESULTS
    stopping = threading.Event()
    on_stop(stopping.set)
    try:
        code: int = arguments.measure(arguments, stopping)
    except Stopped:
        say("Stopped: nothing is left running, and nothing was written.")
        return STOPPED
    return code


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--callers", type=_whole, default=CALLERS, help=f"concurrent calls (default: {CALLERS})")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=SECONDS,
        help=f"seconds of load for each setting in each round (default: {SECONDS:g})",
    )
    parser.add_argument(
        "--rounds", type=_whole, default=ROUNDS, help=f"times that each setting is measured (default: {ROUNDS})"
    )
    text = f"longest wait in seconds for an idle machine before each measurement (default: {PATIENCE_S:g})"
    parser.add_argument("--patience", type=_patience, default=PATIENCE_S, metavar="SECONDS", help=text)
    text = f"{QUICK_ROUNDS} round of {QUICK_SECONDS:g} s for each setting: takes under a minute, but is less accurate"
    parser.add_argument("--quick", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    text = f"folder for table, JSON and chart (default: {RESULTS}; with --quick a temporary one)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=text)
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    parser.add_argument(
        "--backends", type=Path, default=Path("backends"), help="folder of this project's Triton backends"
    )
    text = "folder for the server's log and its copy of the models"
    parser.add_argument("--state", type=Path, default=Path(".triton/bench"), help=text)


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise CommandError(f"'{text}' is not a number of callers or rounds: give 1 or more.")
    return int(text)


def _seconds(text: str) -> float:
    return _number(text, 0.1)


def _patience(text: str) -> float:
    return _number(text, 0)


def _number(text: str, least: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not least <= seconds <= 3600:
        raise CommandError(f"'{text}' is not a time: give {least:g} to 3600 seconds.")
    return seconds
