"""`modelctl list`: lists the models of the repository and their state in the running server."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

from modelctl.embedded import running
from modelctl.errors import CommandError
from modelctl.models import spec as specs
from modelctl.models.repository import Model, Repository
from modelctl.models.spec import FILE
from modelctl.options import add_json, add_models, add_port


@dataclass(frozen=True)
class Row:
    """One model. `state` is the server's; empty when no server answers or the model has not been loaded."""

    name: str
    task: str
    default: bool
    state: str
    megabytes: float
    origin: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_models(parser)
    add_json(parser, "a list of objects")
    add_port(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a table."""
    server = running.reach(arguments.grpc_port)
    states = {}
    if server is not None:
        with server:
            states = {name: state.state for name, state in server.states().items()}
    repository = Repository(arguments.models)
    rows = [_row(repository, model, states.get(model.name, "")) for model in repository.wanted([])]
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    print(f"{'model':28}{'task':22}{'default':9}{'state':13}{'MB':>8}  from")
    for row in rows:
        default = "yes" if row.default else ""
        state = row.state or ("not loaded" if server else "")
        print(f"{row.name:28}{row.task:22}{default:9}{state:13}{row.megabytes:8.1f}  {row.origin}")
    if server is None:
        print("No server answers, so the states are not known.")
    return 0


def _row(repository: Repository, model: Model, state: str) -> Row:
    folders = [repository.folder / name for name in (model.name, *model.steps)]
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    try:
        spec = specs.read(repository.folder / model.name / FILE)
    except CommandError:
        return Row(model.name, "", model.default, state, size / 1e6, "(no model.yaml that can be read)")
    task = "" if spec.task == "none" else spec.task
    return Row(model.name, task, model.default, state, size / 1e6, spec.source.origin)
