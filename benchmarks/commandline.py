"""The command line of `python -m benchmarks`: one subcommand for each measurement of the project."""

from __future__ import annotations

from benchmarks.gateway import measure as gateway
from benchmarks.growth import measure as growth
from benchmarks.tasks import measure as tasks
from modelctl.bench import options
from modelctl.cli import Parser

MEASUREMENTS = {
    "gateway": (gateway, "compare the gateway with Triton called directly, on a model that answers at once"),
    "tasks": (tasks, "compare the gateway end to end with other servers of the same tasks, and with bare processes"),
    "growth": (growth, "measure the gateway's CPU per request with more connections, more models and larger requests"),
}


def build() -> Parser:
    """Return the parser."""
    parser = Parser(prog="python -m benchmarks", description="Measurements of the gateway and of its peers.")
    options.add_measurements(parser, MEASUREMENTS)
    parser.set_defaults(run=options.run)
    return parser
