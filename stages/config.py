"""A step's configuration, as Triton passes it to a Python step at load -> typed values.

    args["model_config"] (JSON text) --StepConfig.of--> parameters, input and output tensors, repository folder

A wrong or missing parameter raises `ConfigError` with one sentence. The model then does not load, which is better than
wrong answers later.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class ConfigError(ValueError):
    """A step's configuration is wrong, so that the model must not load."""


@dataclass(frozen=True)
class Tensor:
    """One input or output of a step: its data type without `TYPE_`, its dims without the batch (-1: any size)."""

    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class StepConfig:
    """The part of a `config.pbtxt` that a step uses.

    Attributes:
        parameters: the config's parameters, each a string.
        inputs: by name, in the config's order.
        outputs: by name, in the config's order.
        repository: the model repository, which is the folder of all models' folders.

    """

    parameters: Mapping[str, str]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    repository: Path

    @classmethod
    def of(cls, args: Mapping[str, str]) -> StepConfig:
        """Read the arguments of `initialize`. In Triton 24.10 `model_repository` is the model's own folder."""
        config = json.loads(args["model_config"])
        given = config.get("parameters", {})
        return cls(
            parameters={name: value.get("string_value", "") for name, value in given.items()},
            inputs=_tensors(config.get("input", [])),
            outputs=_tensors(config.get("output", [])),
            repository=Path(args["model_repository"]).parent,
        )

    def text(self, name: str, default: str | None = None) -> str:
        """Return a parameter; raises ConfigError when it is absent and has no default."""
        value = self.parameters.get(name, default)
        if value is None:
            raise ConfigError(f"The parameter '{name}' is missing.")
        return value

    def choice(self, name: str, choices: Sequence[str], default: str | None = None) -> str:
        """Return a parameter that is one of `choices`; raises ConfigError when it is not."""
        value = self.text(name, default)
        if value not in choices:
            raise ConfigError(f"The parameter '{name}' must be one of {', '.join(choices)}, not '{value}'.")
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        """Return a numeric parameter within [low, high]; raises ConfigError when it is not."""
        text = self.text(name, None if default is None else repr(default))
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ConfigError(f"The parameter '{name}' must be a number from {low:g} to {high:g}, not '{text}'.")
        return value

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """Return a whole-numbered parameter within [low, high]; raises ConfigError when it is not."""
        value = self.number(name, low, high, default)
        if value != int(value):
            raise ConfigError(f"The parameter '{name}' must be a whole number, not '{self.parameters[name]}'.")
        return int(value)

    def path(self, name: str) -> Path:
        """Return the path of the file that a parameter names, relative to the repository.

        Raises:
            ConfigError: the parameter or the file is absent.

        """
        path = self.repository / self.text(name)
        if not path.is_file():
            raise ConfigError(
                f"The parameter '{name}' names '{self.text(name)}', which is not a file in the repository."
            )
        return path

    def labels(self, count: int) -> list[str]:
        """Return the lines of the file that the parameter `labels` names.

        Args:
            count: number of the network's classes; negative when the config leaves it open.

        Raises:
            ConfigError: the file is absent, is not UTF-8, has an empty line, or does not have `count` lines.

        """
        path = self.path("labels")
        try:
            labels = [line.strip() for line in path.read_text("utf-8").rstrip().split("\n")]
        except UnicodeDecodeError:
            raise ConfigError(f"The labels file '{self.text('labels')}' is not UTF-8.") from None
        if "" in labels:
            raise ConfigError(f"The labels file '{self.text('labels')}' has an empty line {labels.index('') + 1}.")
        if 0 <= count != len(labels):
            raise ConfigError(
                f"The labels file '{self.text('labels')}' has {len(labels)} labels, the network {count} classes."
            )
        return labels


def _tensors(entries: Sequence[Mapping[str, object]]) -> dict[str, Tensor]:
    return {str(entry["name"]): _tensor(entry) for entry in entries}


def _tensor(entry: Mapping[str, object]) -> Tensor:
    dims = entry["dims"]
    if not isinstance(dims, list):
        raise ConfigError(f"The dims of tensor '{entry['name']}' are not a list.")
    # Triton writes 64-bit numbers as strings in its JSON.
    return Tensor(str(entry["data_type"]).removeprefix("TYPE_"), tuple(int(size) for size in dims))
