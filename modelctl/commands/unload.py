"""`modelctl unload`: unloads models from the running server; their files stay in the repository."""

from __future__ import annotations

import argparse
import json

from modelctl.console import say
from modelctl.embedded import running
from modelctl.embedded.triton import READY
from modelctl.models.repository import Repository
from modelctl.options import add_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_names(parser)


def run(arguments: argparse.Namespace) -> int:
    """Unload each model with its steps, except those that another loaded model needs."""
    repository = Repository(arguments.models)
    models = repository.wanted(arguments.names)
    done = []
    with running.require(arguments.grpc_port) as server:
        loaded = {name for name, state in server.states().items() if state.state == READY}
        for model in models:
            others = loaded - {model.name}
            needed = {step for name in others if name in repository.models for step in repository.models[name].steps}
            names = [model.name, *(step for step in model.steps if step not in needed)]
            server.unload(names)
            say(f"{model.name} is unloaded.")
            done.append({"name": model.name, "unloaded": names})
    if arguments.json:
        print(json.dumps(done, indent=2))
    return 0
