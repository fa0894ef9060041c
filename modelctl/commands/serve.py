"""`modelctl serve`: supervises Triton until it is told to stop."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from modelctl.embedded import installation
from modelctl.embedded.ports import PORTS, Ports, port, port_text
from modelctl.embedded.server import Launch, on_stop
from modelctl.embedded.supervisor import Supervisor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    parser.add_argument("--backends", type=Path, default=Path("backends"), help="our Python-based backends")
    parser.add_argument("--state", type=Path, default=Path(".triton"), help="folder for logs and what is put together")
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME", help="load these models only")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    for name in ("grpc", "metrics"):
        variable = f"TRITON_{name.upper()}_PORT"
        text = f"default: {variable}, else {PORTS[variable]}"
        kind = partial(port, variable=variable)
        parser.add_argument(f"--{name}-port", type=kind, default=port_text(variable), help=text)
    parser.add_argument("extra", nargs="*", help="after --: more options for tritonserver")


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    launch = Launch(
        installation=installation.find(),
        models=arguments.models,
        backends=arguments.backends,
        state=arguments.state,
        host=arguments.host,
        ports=Ports(arguments.grpc_port, arguments.metrics_port),
        extra=tuple(arguments.extra),
    )
    supervisor = Supervisor(launch, arguments.model)
    on_stop(supervisor.stop)
    supervisor.run()
    return 0
