"""`modelctl render`: writes the configurations of models from their `model.yaml`.

    ModelSpec --files--> path in the repository -> content: config.pbtxt of each step, its variants, its warm-up data

The same spec always gives the same bytes: a configuration is a protobuf message in protobuf's own text form. Every
default that is not in the spec is a constant of `modelctl.configs`, and docs/models.md gives its reason.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from modelctl import configs, spec
from modelctl.commandline import add_json
from modelctl.errors import CommandError, did_you_mean
from modelctl.spec import FILE, ModelSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to render (default: all with a model.yaml)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file would change")
    add_json(parser, "a list of what was written, or would be,")
    parser.add_argument("--schema", type=Path, metavar="FILE", help="write the JSON Schema of model.yaml there instead")


def run(arguments: argparse.Namespace) -> int:
    """Write what differs, or only say so."""
    if arguments.schema:
        arguments.schema.write_text(json.dumps(spec.schema(), indent=2) + "\n")
        return 0
    changed = [
        path for model in specs(arguments.models, arguments.names) for path in differing(model, arguments.models)
    ]
    words = ("removed", "written") if not arguments.check else ("not wanted", "differs")
    for path, content in changed:
        if not arguments.check:
            _put(path, content)
        if not arguments.json:
            print(f"{words[content is not None]}: {path}")
    if arguments.json:
        rows = [{"path": str(path), "result": words[content is not None]} for path, content in changed]
        print(json.dumps(rows, indent=2))
    elif not changed:
        print("All configurations are as model.yaml says.")
    return int(arguments.check and bool(changed))


def specs(repository: Path, names: list[str]) -> list[ModelSpec]:
    """Return the specs of the named models, or of all.

    Raises:
        CommandError: when one cannot be read, a named model has none, or two are the default for a task.

    """
    found = {path.parent.name: path for path in sorted(repository.glob(f"*/{FILE}"))}
    missing = [name for name in names if name not in found]
    if missing:
        there, hint = ", ".join(found) or "none", did_you_mean(missing[0], found)
        raise CommandError(f"There is no {repository / missing[0] / FILE}; models with one: {there}.{hint}")
    models = [spec.read(found[name]) for name in names or found]
    defaults: dict[str, str] = {}
    for model in models:
        if getattr(model, "default", False):
            other = defaults.setdefault(model.task, model.name)
            if other != model.name:
                raise CommandError(f"{other} and {model.name} are both the default for {model.task}: one may be.")
    return models


def files(model: ModelSpec, folder: Path) -> dict[str, bytes]:
    """Return what belongs to a spec, by path in the repository; `folder` holds its canary's picture."""
    made: dict[str, bytes] = {}
    for name, config in configs.all_of(model, folder).items():
        made[f"{name}/config.pbtxt"] = configs.text(config)
        made[f"{name}/1/.gitkeep"] = b""
    for variant, config in configs.variants(model).items():
        made[f"{model.network_name}/configs/{variant}.pbtxt"] = configs.text(config)
    return made | configs.warmup_data(model, folder)


def differing(model: ModelSpec, repository: Path) -> list[tuple[Path, bytes | None]]:
    """Return the files of a spec that are absent or other on disk, with what they must hold; None: no such file."""
    made = {repository / path: content for path, content in files(model, repository / model.name).items()}
    wanted = [(path, content) for path, content in made.items() if not path.exists() or path.read_bytes() != content]
    folders = {path.parent if path.name == "config.pbtxt" else path.parent.parent for path in made}
    there = [path for folder in folders for path in sorted(folder.glob("configs/*.pbtxt"))]
    # What was written by hand stays.
    stale = [path for path in there if path not in made and path.read_bytes().startswith(configs.HEADER.encode())]
    return [*wanted, *((path, None) for path in stale)]


def _put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write(model: ModelSpec, repository: Path) -> None:
    """Write all files of a spec; raises CommandError when its canary cannot be read."""
    for path, content in differing(model, repository):
        _put(path, content)
