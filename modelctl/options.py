"""Options that several commands have."""

from __future__ import annotations

import argparse
from functools import partial

from modelctl.embedded.ports import PORTS, port, port_text


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare `--json`: the one thing on standard output; progress and errors stay on standard error."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def add_port(parser: argparse.ArgumentParser) -> None:
    """Declare the option for Triton's port."""
    variable = "TRITON_GRPC_PORT"
    text = f"Triton's (default: {variable}, else {PORTS[variable]})"
    kind = partial(port, variable=variable)
    parser.add_argument("--grpc-port", type=kind, default=port_text(variable), help=text)
