"""The model repository on disk: its models, its ensembles and their steps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from modelctl.errors import CommandError, did_you_mean


@dataclass(frozen=True)
class Model:
    """One folder of the repository. `steps` are the models that an ensemble is made of."""

    name: str
    default: bool
    steps: tuple[str, ...]


class Repository:
    """The models of one folder. A configuration that cannot be read counts as empty; Triton refuses it."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise CommandError(f"There is no model repository at {folder}: give its folder with --models.")
        self.folder = folder
        try:
            self.models = {path.name: _model(path) for path in sorted(folder.iterdir()) if is_model(path)}
        except OSError as error:
            raise CommandError(f"The model repository {folder} cannot be read: {error.strerror}.") from error

    def wanted(self, names: list[str]) -> list[Model]:
        """Return the models to load: the named ones, or all; without steps, which Triton loads with their ensemble.

        Raises:
            CommandError: when a named model does not exist.

        """
        missing = [name for name in names if name not in self.models]
        if missing:
            there, hint = ", ".join(self.models), did_you_mean(missing[0], self.models)
            raise CommandError(f"There is no model {missing[0]} in {self.folder}; its models: {there}.{hint}")
        chosen = [self.models[name] for name in names] if names else list(self.models.values())
        steps = {step for model in chosen for step in model.steps}
        return [model for model in chosen if model.name not in steps]


def is_model(folder: Path) -> bool:
    """Tell whether a folder of the repository is a model."""
    # Path.is_file raises for a folder that may not be read; Triton 24.10 crashes when config.pbtxt is a folder.
    return os.path.isfile(folder / "config.pbtxt")


def read_config(path: Path) -> Any:
    """Return the ModelConfig of a `config.pbtxt`; an empty one when the file cannot be read."""
    try:
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except (OSError, text_format.ParseError, UnicodeDecodeError):
        return model_config_pb2.ModelConfig()


def _model(folder: Path) -> Model:
    config = read_config(folder / "config.pbtxt")
    steps = tuple(step.model_name for step in config.ensemble_scheduling.step)
    return Model(folder.name, config.parameters["default"].string_value.lower() == "true", steps)
