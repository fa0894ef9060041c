"""`modelctl load`: loads models of the repository into the running server, or reloads them."""

from __future__ import annotations

import argparse
import json

from modelctl.console import say
from modelctl.embedded import running
from modelctl.errors import CommandError
from modelctl.lint.linter import lint
from modelctl.models.repository import Repository
from modelctl.options import add_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_names(parser)


def run(arguments: argparse.Namespace) -> int:
    """Load each; the first that fails ends the command."""
    models = Repository(arguments.models).wanted(arguments.names)
    # When a reload fails, Triton stops serving the model as it was before, too.
    _, findings = lint(arguments.models)
    loaded = {name for model in models for name in (model.name, *model.steps)}
    errors = [one for one in findings if one.model in loaded and one.rule.severity == "error"]
    if errors:
        first = errors[0]
        raise CommandError(f"modelctl lint finds an error in {first.model}, so nothing was loaded: {first.sentence}")
    done = []
    with running.require(arguments.grpc_port) as server:
        for model in models:
            server.load(model.name)
            say(f"{model.name} is loaded.")
            served = running.wait_for_gateway(model.name) if model.steps else None
            if served is False:
                say("The gateway does not serve it: see GET /readyz.")
            done.append({"name": model.name, "loaded": [model.name, *model.steps], "gateway": served})
    if arguments.json:
        print(json.dumps(done, indent=2))
    return 0
