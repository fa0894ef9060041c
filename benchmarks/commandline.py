"""The command line of `python -m benchmarks`: one subcommand for each measurement of the project."""

from __future__ import annotations

from benchmarks.gateway import measure as gateway
from benchmarks.growth import measure as growth
from benchmarks.tasks import measure as tasks
from modelctl.bench import options
from modelctl.cli import Parser

MEASUREMENTS = {
    "gateway": (gateway, "what the gateway costs before a model that answers at once, against Triton asked directly"),
    "tasks": (tasks, "the gateway end to end, against other ways to serve the same tasks, and against no server"),
    "growth": (growth, "what a request costs the gateway, with more connections, more models, larger pictures"),
}


def build() -> Parser:
    """Return the parser."""
    parser = Parser(prog="python -m benchmarks", description="Measurements of the gateway and of its peers.")
    options.add_measurements(parser, MEASUREMENTS)
    parser.set_defaults(run=options.run)
    return parser
