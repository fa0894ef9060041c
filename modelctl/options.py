"""Options that several commands share, so that no command imports another."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from modelctl.embedded.ports import PORTS, port, port_text


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare `--json`: standard output then holds only JSON; progress and errors go to standard error."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def add_models(parser: argparse.ArgumentParser) -> None:
    """Declare the folder of the model repository."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")


def add_names(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `load` and `unload`: models of the repository, and the running server."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="models; their steps are included")
    add_models(parser)
    add_json(parser, "a list of objects")
    add_port(parser)


def add_serving(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `serve` and `up`: how to start Triton."""
    add_models(parser)
    parser.add_argument(
        "--backends", type=Path, default=Path("backends"), help="folder of this project's Triton backends"
    )
    parser.add_argument(
        "--state", type=Path, default=Path(".triton"), help="folder for Triton's logs, files and control key"
    )
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME", help="load only these models")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    for name in ("grpc", "metrics"):
        variable = f"TRITON_{name.upper()}_PORT"
        text = f"default: {variable}, else {PORTS[variable]}"
        kind = partial(port, variable=variable)
        parser.add_argument(f"--{name}-port", type=kind, default=port_text(variable), help=text)
    parser.add_argument("extra", nargs="*", help="after --: further options for tritonserver")


def add_port(parser: argparse.ArgumentParser) -> None:
    """Declare the option for Triton's gRPC port."""
    variable = "TRITON_GRPC_PORT"
    text = f"Triton's gRPC port (default: {variable}, else {PORTS[variable]})"
    kind = partial(port, variable=variable)
    parser.add_argument("--grpc-port", type=kind, default=port_text(variable), help=text)
