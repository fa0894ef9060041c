"""`modelctl serve`: chooses ONNX or plans, then supervises Triton until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from modelctl import installation, plans
from modelctl.repository import Repository
from modelctl.server import Launch, Ports, port, say
from modelctl.supervisor import Supervisor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    parser.add_argument("--backends", type=Path, default=Path("backends"), help="our Python-based backends")
    parser.add_argument("--state", type=Path, default=Path(".triton"), help="folder for logs and what is put together")
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME", help="load these models only")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    for name, default in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        variable = f"TRITON_{name.upper()}_PORT"
        text = f"default: {variable}, else {default}"
        parser.add_argument(f"--{name}-port", type=port, default=os.environ.get(variable, str(default)), help=text)
    parser.add_argument("extra", nargs="*", help="after --: more options for tritonserver")


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    found = installation.find()
    repository = Repository(arguments.models)
    wanted = repository.wanted(arguments.model)
    names = [name for model in wanted for name in (model.name, *model.steps)]
    choice = plans.choose(arguments.models, names, plans.this_machine())
    say(f"Networks run as {'TensorRT plans' if choice.plans else 'ONNX'}: {choice.reason}.")
    launch = Launch(
        installation=found,
        models=arguments.models,
        backends=arguments.backends,
        state=arguments.state,
        host=arguments.host,
        ports=Ports(arguments.http_port, arguments.grpc_port, arguments.metrics_port),
        load=tuple(model.name for model in wanted),
        variant=plans.VARIANT if choice.plans else None,
        extra=tuple(arguments.extra),
    )
    supervisor = Supervisor(launch, repository, wanted)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    supervisor.run()
    return 0
