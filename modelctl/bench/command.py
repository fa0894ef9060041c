"""`modelctl bench`: measures what a choice costs and gains, on a Triton of its own."""

from __future__ import annotations

import argparse

from modelctl.bench import instances, options, sweep

MEASUREMENTS = {
    "instances": (instances, "how memory, throughput and latency change with the number of instances"),
    "sweep": (sweep, "which batch size, instances and queue delay serve a model best, under how many callers"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the measurements, and the options that all of them have."""
    options.add_measurements(parser, MEASUREMENTS)


def run(arguments: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    return options.run(arguments)
