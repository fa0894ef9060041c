"""The cache of built plans, and how a plan gets into the model repository.

    <cache>/<key>.plan, .json   one for each combination of what a plan depends on (`Parts`)
    models/<network>/1/model.plan, model.plan.json   the one that is served, if it fits (`modelctl.plans.choice`)

A plan counts only with its record beside it. The record is written last and removed first, so that an interruption
never leaves a plan with the record of another.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from modelctl.errors import CommandError
from modelctl.plans.checks import Facts
from modelctl.plans.command_lines import Profile


@dataclass(frozen=True)
class Parts:
    """What a plan depends on: it is built again only when one of these changes."""

    onnx_sha256: str
    tensorrt_version: str
    compute_capability: str
    profile: Profile
    precision: str

    @property
    def key(self) -> str:
        """The file name, without its suffix, for this combination."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


def find(plan: Path, parts: Parts) -> Facts | None:
    """Return a plan's facts; None when there is no plan, or when it was built from other parts."""
    try:
        data = json.loads(_record(plan).read_text())
        same = all(data[name] == value for name, value in asdict(parts).items())
        return Facts.from_json(data) if same and plan.is_file() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def put(source: Path, plan: Path, parts: Parts, facts: Facts) -> None:
    """Copy a plan to its place, and write its record; the old plan stays until the copy is complete.

    Raises:
        CommandError: when the place cannot be written to.

    """
    new = plan.with_name(f".{plan.name}.new")
    try:
        plan.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as data, make(new) as copy:
            shutil.copyfileobj(data, copy)
        _record(plan).unlink(missing_ok=True)
        os.replace(new, plan)
        _write(_record(plan), {**asdict(parts), **facts.json()})
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise CommandError(f"{plan} cannot be written: {error.strerror} (user {os.getuid()}).") from error


def make(path: Path) -> BinaryIO:
    """Make a file and open it. Other users may write to a cache: a link of theirs is replaced, not followed."""
    path.unlink(missing_ok=True)
    return path.open("xb")


def _record(plan: Path) -> Path:
    return plan.with_name(f"{plan.name}.json")


def _write(path: Path, data: dict[str, Any]) -> None:
    new = path.with_name(f".{path.name}.new")
    with make(new) as file:
        file.write(json.dumps(data, indent=2).encode() + b"\n")
    os.replace(new, path)
