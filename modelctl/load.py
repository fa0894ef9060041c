"""`modelctl load`: loads models of the repository into the running server; again when they are loaded already."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelctl import loading
from modelctl.repository import Repository
from modelctl.server import say
from modelctl.verify import add_port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="the models; their steps come with them")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    add_port(parser)


def run(arguments: argparse.Namespace) -> int:
    """Load each; the first that fails ends the command."""
    models = Repository(arguments.models).wanted(arguments.names)
    with loading.require(arguments.grpc_port) as running:
        for model in models:
            running.load(model.name)
            say(f"{model.name} is loaded.")
    return 0
