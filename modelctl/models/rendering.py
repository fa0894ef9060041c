"""The files of a model repository that are generated from a `model.yaml`.

    ModelSpec --files--> path in the repository -> content: config.pbtxt of each step, its variants, its warm-up data

The same spec always gives the same bytes: a configuration is a protobuf message in protobuf's own text form. Every
default that is not in the spec is a constant of `modelctl.models.configs`, and docs/models.md gives its reason.
"""

from __future__ import annotations

from pathlib import Path

from modelctl.errors import CommandError, did_you_mean
from modelctl.models import configs, spec
from modelctl.models.spec import FILE, ModelSpec


def specs(repository: Path, names: list[str]) -> list[ModelSpec]:
    """Return the specs of the named models, or of all.

    Raises:
        CommandError: a spec cannot be read, a named model has none, or two models are the default for one task.

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
                raise CommandError(f"{other} and {model.name} are both the default for {model.task}: only one may be.")
    return models


def files(model: ModelSpec, folder: Path) -> dict[str, bytes]:
    """Return the generated files of a spec, by path in the repository; `folder` holds its canary's picture."""
    contents: dict[str, bytes] = {}
    for name, config in configs.all_of(model, folder).items():
        contents[f"{name}/config.pbtxt"] = configs.text(config)
        contents[f"{name}/1/.gitkeep"] = b""
    for variant, config in configs.variants(model).items():
        contents[f"{model.network_name}/configs/{variant}.pbtxt"] = configs.text(config)
    return contents | configs.warmup_data(model, folder)


def differing(model: ModelSpec, repository: Path) -> list[tuple[Path, bytes | None]]:
    """Return the files of a spec that differ on disk, with the content they must have; None for files to remove."""
    contents = {repository / path: content for path, content in files(model, repository / model.name).items()}
    wanted = [
        (path, content) for path, content in contents.items() if not path.exists() or path.read_bytes() != content
    ]
    folders = {path.parent if path.name == "config.pbtxt" else path.parent.parent for path in contents}
    there = [path for folder in folders for path in sorted(folder.glob("configs/*.pbtxt"))]
    # Files written by hand stay.
    stale = [path for path in there if path not in contents and path.read_bytes().startswith(configs.HEADER.encode())]
    return [*wanted, *((path, None) for path in stale)]


def put(path: Path, content: bytes | None) -> None:
    """Write a file, or remove it where the content is None."""
    if content is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write(model: ModelSpec, repository: Path) -> None:
    """Write all files of a spec; raises CommandError when its canary cannot be read."""
    for path, content in differing(model, repository):
        put(path, content)
