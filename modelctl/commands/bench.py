"""`modelctl bench`: measures a model under load with different settings, on a Triton of its own."""

from __future__ import annotations

import argparse

from modelctl.bench import instances, options, sweep

MEASUREMENTS = {
    "instances": (instances, "measure memory, throughput and latency for several numbers of instances"),
    "sweep": (sweep, "find the batch size, number of instances and queue delay that serve a model best"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the measurements, and their shared options."""
    options.add_measurements(parser, MEASUREMENTS)


def run(arguments: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    return options.run(arguments)
