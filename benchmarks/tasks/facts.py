"""Facts about the models for the peers: the configs of each task's default ensemble and its steps, as one JSON file.

Peers run in environments of their own, which cannot read `config.pbtxt`: they get the JSON that Triton gives to a step.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from modelctl.errors import CommandError
from modelctl.models.repository import Model, Repository, read_config
from modelctl.models.tasks import TASKS

STEPS = ("preprocess", "network", "postprocess")


def write(path: Path, models: Path, routes: list[str], triton: str) -> None:
    """Write the facts about the tasks of these routes; `triton` is the address of its gRPC, host:port.

    Raises:
        CommandError: when a task has no default model.

    """
    tasks = {route: _configs(models, model) for route, model in defaults(models).items() if route in routes}
    missing = [route for route in routes if route not in tasks]
    if missing:
        raise CommandError(f"No model in {models} is the default of {missing[0]}: leave it out of --tasks.")
    facts = {"cores": len(os.sched_getaffinity(0)), "repository": str(models.resolve()), "triton": triton}
    path.write_text(json.dumps({**facts, "tasks": tasks}), "utf-8")


def defaults(models: Path) -> dict[str, Model]:
    """Return the default ensemble of each route."""
    found = {}
    for model in Repository(models).models.values():
        task = read_config(models / model.name / "config.pbtxt").parameters["task"].string_value
        if model.default and len(model.steps) == len(STEPS) and task in TASKS:
            found[TASKS[task].route] = model
    return found


def _configs(models: Path, model: Model) -> dict[str, Any]:
    names = {"ensemble": model.name, **dict(zip(STEPS, model.steps, strict=True))}
    return {
        step: MessageToDict(read_config(models / name / "config.pbtxt"), preserving_proto_field_name=True)
        for step, name in names.items()
    }
