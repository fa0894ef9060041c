"""`modelctl remove`: unloads a model and deletes it from the repository."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from modelctl.console import say
from modelctl.embedded import running
from modelctl.errors import CommandError
from modelctl.models.repository import Repository
from modelctl.options import add_json, add_models, add_port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="the model to remove")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    add_models(parser)
    add_json(parser, "an object")
    add_port(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask, unload, delete."""
    if arguments.json and not arguments.yes:
        raise CommandError("--json cannot ask for confirmation: give --yes with it.")
    repository = Repository(arguments.models)
    (model,) = repository.wanted([arguments.name])
    users = [other.name for other in repository.models.values() if model.name in other.steps]
    if users:
        raise CommandError(f"{model.name} is a step of {users[0]}: remove {users[0]} instead.")
    if model.default:
        raise CommandError(
            f"{model.name} is the default of its task: make another model the default first, in its model.yaml."
        )
    # A step that another model shares stays.
    others = {step for other in repository.models.values() if other.name != model.name for step in other.steps}
    names = [model.name, *(step for step in model.steps if step not in others)]
    folders = [repository.folder / name for name in names if (repository.folder / name).is_dir()]
    if not arguments.yes and not _agrees(folders):
        print("Nothing was removed.")
        return 1
    server = running.reach(arguments.grpc_port)
    if server is not None:
        with server:
            server.unload(names)
    for folder in folders:
        shutil.rmtree(folder)
    say(f"{model.name} is removed.")
    if arguments.json:
        print(
            json.dumps(
                {"name": model.name, "unloaded": server is not None, "removed": list(map(str, folders))}, indent=2
            )
        )
    return 0


def _agrees(folders: list[Path]) -> bool:
    print("This deletes:")
    for folder in folders:
        print(f"  {folder}")
    try:
        return input("Delete them? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
