"""`modelctl unload`: takes models out of the running server; they stay in the repository."""

from __future__ import annotations

import argparse
import json

from modelctl import load, loading
from modelctl.console import say
from modelctl.repository import Repository
from modelctl.triton import READY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: those of `load`."""
    load.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Unload each with its steps, but for steps that another loaded model needs."""
    repository = Repository(arguments.models)
    models = repository.wanted(arguments.names)
    done = []
    with loading.require(arguments.grpc_port) as running:
        loaded = {name for name, state in running.states().items() if state.state == READY}
        for model in models:
            others = loaded - {model.name}
            needed = {step for name in others if name in repository.models for step in repository.models[name].steps}
            names = [model.name, *(step for step in model.steps if step not in needed)]
            running.unload(names)
            say(f"{model.name} is unloaded.")
            done.append({"name": model.name, "unloaded": names})
    if arguments.json:
        print(json.dumps(done, indent=2))
    return 0
