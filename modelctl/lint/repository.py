"""A model repository as Triton sees it: once with every `config.pbtxt`, and once for each variant.

With `--model-config-name=tensorrt` Triton takes `<model>/configs/tensorrt.pbtxt` where it exists and `config.pbtxt`
elsewhere, so a variant is a repository of its own, whose models must fit each other too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from modelctl.lint import lines
from modelctl.lint.rule import Finding, Rule

VERSION = re.compile(r"0|[1-9]\d*")
# The backend that Triton takes by a file's name when the config names none, with auto-completion or without.
BACKENDS = {
    **{"model.onnx": "onnxruntime", "model.plan": "tensorrt", "model.savedmodel": "tensorflow"},
    **{"model.graphdef": "tensorflow", "model.xml": "openvino", "model.py": "python", "model.pt": "pytorch"},
}
# The files whose tensors Triton completes, unless it runs with --disable-auto-complete-config.
COMPLETED = tuple(name for name, backend in BACKENDS.items() if backend != "pytorch")


@dataclass(frozen=True)
class Config:
    """One configuration file. `error` says why it cannot be read, at `line`; `message` is empty then."""

    path: Path
    text: str
    message: Any = field(compare=False)
    error: str = ""
    line: int | None = None

    @cached_property
    def lines(self) -> dict[str, int]:
        """The line of every field."""
        return lines.locate(self.text)


@dataclass(frozen=True, eq=False)
class Model:
    """One folder with the config that Triton uses.

    `base` is its `config.pbtxt`, which is `config` too when there is no variant.
    """

    name: str
    folder: Path
    config: Config
    base: Config
    repository: Repository = field(repr=False)

    @property
    def message(self) -> Any:
        """The ModelConfig."""
        return self.config.message

    @property
    def steps(self) -> list[Any]:
        """The steps of an ensemble."""
        return list(self.message.ensemble_scheduling.step)

    @property
    def backend(self) -> str:
        """The backend that runs the model; `ensemble` for an ensemble, empty when neither config nor files name one."""
        of_platform = {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt", "pytorch_libtorch": "pytorch"}
        named = self.message.backend or of_platform.get(self.message.platform, self.message.platform)
        if named or self.message.HasField("ensemble_scheduling") or self.message.default_model_filename:
            return str(named)
        return next((backend for name, backend in BACKENDS.items() if _holds(self.folder, (name,))), "")

    @property
    def is_variant(self) -> bool:
        """Whether the config is a variant's."""
        return self.config is not self.base

    @cached_property
    def versions(self) -> list[int]:
        """The versions that Triton loads: those of the policy (by default the latest one) that have a folder."""
        here = sorted(
            int(path.name) for path in self.folder.iterdir() if path.is_dir() and VERSION.fullmatch(path.name)
        )
        policy = self.message.version_policy
        kind = policy.WhichOneof("policy_choice")
        if kind == "all":
            return here
        if kind == "specific":
            return [version for version in here if version in policy.specific.versions]
        return here[-(policy.latest.num_versions or 1) :]

    def is_completed(self, kind: str) -> bool:
        """Tell whether the config names no tensors of a kind (`input` or `output`), and Triton can complete them."""
        is_open = not getattr(self.message, kind) and self.backend != "ensemble"
        return is_open and _holds(self.folder, (*COMPLETED, self.message.default_model_filename or COMPLETED[0]))

    def has_file(self, version: int, name: str) -> bool:
        """Tell whether a version has its model file: the named one, or one for a compute capability."""
        names = (name, *self.message.cc_model_filenames.values())
        return any((self.folder / str(version) / one).exists() for one in names)

    def parameter(self, name: str) -> str:
        """Return a parameter of the config; empty when it is absent."""
        return str(self.message.parameters[name].string_value) if name in self.message.parameters else ""

    def ensembles(self) -> list[Model]:
        """Return the ensembles that this model is a step of."""
        models = self.repository.models.values()
        return [model for model in models if any(step.model_name == self.name for step in model.steps)]

    def finding(self, rule: Rule, sentence: str, field: str = "") -> Finding:
        """Return a finding at a field of the config."""
        line = lines.find(self.config.lines, field) if field else None
        return Finding(rule, self.name, self.config.path, field, line, sentence)


@dataclass(frozen=True, eq=False)
class Repository:
    """All models of a folder under one choice of configs.

    `strays` are folders that Triton fails to load as models; `bare` have no config either, but Triton completes one.
    """

    folder: Path
    variant: str = ""
    models: dict[str, Model] = field(default_factory=dict)
    strays: list[Path] = field(default_factory=list)
    bare: list[Path] = field(default_factory=list)


def read(folder: Path) -> list[Repository]:
    """Read a folder: the repository of the `config.pbtxt` files first, then one for each variant."""
    found = sorted(folder.iterdir())
    bases = {path: _config(path / "config.pbtxt") for path in found if (path / "config.pbtxt").is_file()}
    variants = {path: {file.stem: _config(file) for file in sorted(path.glob("configs/*.pbtxt"))} for path in bases}
    others = [path for path in found if path.is_dir() and path not in bases]
    bare = [path for path in others if _holds(path, COMPLETED)]
    strays = [path for path in others if path not in bare]
    names = sorted({name for configs in variants.values() for name in configs})
    return [_repository(folder, name, bases, variants, strays, bare) for name in ("", *names)]


def _repository(
    folder: Path,
    variant: str,
    bases: dict[Path, Config],
    variants: dict[Path, dict[str, Config]],
    strays: list[Path],
    bare: list[Path],
) -> Repository:
    made = Repository(folder, variant, strays=strays, bare=bare)
    for path, base in bases.items():
        made.models[path.name] = Model(path.name, path, variants[path].get(variant, base), base, made)
    return made


def _config(path: Path) -> Config:
    try:
        text = path.read_text("utf-8")
        return Config(path, text, text_format.Parse(text, model_config_pb2.ModelConfig()))
    except UnicodeDecodeError:
        return Config(path, "", model_config_pb2.ModelConfig(), "it is not UTF-8", None)
    except text_format.ParseError as error:
        message = re.sub(r"^\d+:\d+ : ", "", str(error)).removeprefix("'").split("': ")[-1]
        message = f"{' '.join(message.split()).rstrip('.')} (column {error.GetColumn()})"
        return Config(path, text, model_config_pb2.ModelConfig(), message, error.GetLine())


def _holds(folder: Path, names: Iterable[str]) -> bool:
    """Tell whether a version of a model has one of these files."""
    return any((version / name).exists() for version in folder.glob("[0-9]*") for name in names)
