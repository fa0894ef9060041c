"""Finds the kind of a source and makes its draft."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from ruamel.yaml import YAML

from modelctl.errors import CommandError, did_you_mean
from modelctl.sources import formats, hub
from modelctl.sources.draft import HUB, Draft, Order

RECIPES = Path(__file__).parent.parent / "recipes"
TORCH_FILES = (".pt", ".pth", ".torchscript")
FILES = (".onnx", ".tflite", *TORCH_FILES)
"""Endings of files that are served."""


def recipes() -> dict[str, Path]:
    """Return the recipes by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def expand(source: str, options: argparse.Namespace) -> str:
    """Return the source that a recipe names; set the recipe's options unless the user gave them."""
    if source not in recipes():
        return source
    recipe = YAML(typ="safe").load(recipes()[source].read_text("utf-8"))
    for name, value in recipe.get("options", {}).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.name = options.name or source
    found = str(recipe["source"])
    return str(RECIPES / found) if (RECIPES / found).is_file() else found


def draft(order: Order) -> Draft:
    """Return the draft of a source.

    Raises:
        CommandError: when there is no such source, or when it cannot be served.

    """
    source, path = order.source, Path(order.source)
    if source.startswith(HUB) or (path / "config.json").is_file():
        _require("torch", "transformers")
        if source.startswith(HUB):
            hub.require(source, source.removeprefix(HUB))
        from modelctl.sources import huggingface  # here, because it imports packages that other sources do not need

        return huggingface.draft(order)
    ending = path.suffix.lower()
    if ending == ".onnx":
        from modelctl.sources import onnxfile

        return onnxfile.draft(order)
    if ending == ".tflite":
        from modelctl.sources import tflite

        return tflite.draft(order)
    if ending in TORCH_FILES:
        from modelctl.sources import torchscript, ultralytics

        if not path.is_file() and path.parent != Path():  # Ultralytics downloads a file given by its name alone
            raise CommandError(f"There is no file {path}: give the path of one.")
        if not torchscript.is_torchscript(path):
            formats.refuse_pickle(path)
            return ultralytics.draft(order)
        _require("torch")
        return torchscript.draft(order)
    if path.exists():
        formats.refuse_other(path)
    known = ", ".join(recipes())
    raise CommandError(
        f"'{source}' is not a source.{did_you_mean(source, recipes())} Give a recipe ({known}), hf:<repository>, "
        "the folder of a checkpoint, an .onnx, .pt or .tflite file."
    )


def _require(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise CommandError(f"{missing[0]} is needed to read this source: run ./dev_start.sh --setup-only export.")
