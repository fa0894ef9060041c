"""Copies a model of the repository for one measurement, with other instances or other batching.

Weights, labels and warm-up data are linked, not copied; only configurations are written.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from modelctl.errors import CommandError
from modelctl.models.repository import Model, read_config

THREADS = "intra_op_thread_count"
CONFIG, VARIANTS = "config.pbtxt", "configs"


@dataclass(frozen=True)
class Setting:
    """The setting of one model; None leaves a value as configured.

    Attributes:
        count: number of instances.
        threads: ONNX Runtime's threads in each instance.
        batch: max_batch_size of the model and of all its steps, as `modelctl render` writes it.
        delay_us: queue delay of the varied model, in microseconds.

    """

    count: int
    threads: int | None = None
    batch: int | None = None
    delay_us: int | None = None

    @property
    def label(self) -> str:
        """Its name in tables: the count, or count x threads."""
        return str(self.count) if self.threads is None else f"{self.count}x{self.threads}"


def varied(model: Model, step: str | None) -> str:
    """Return the model whose instances are counted: a tensor model itself, or an ensemble's step.

    Raises:
        CommandError: when there is no such step.

    """
    if not model.steps:
        if step is not None:
            raise CommandError(f"{model.name} is not an ensemble: omit --step.")
        return model.name
    name = f"{model.name}_{step or 'network'}"
    if name not in model.steps:
        raise CommandError(f"{model.name} has no step {name}; its steps are: {', '.join(model.steps)}.")
    return name


def write(source: Path, model: Model, name: str, setting: Setting, target: Path) -> None:
    """Write a repository of one model and its steps; `name` is the one that gets the setting.

    Raises:
        CommandError: when a configuration cannot be read, or has no such setting.

    """
    shutil.rmtree(target, ignore_errors=True)
    for folder in (model.name, *model.steps):
        if not (source / folder).is_dir():
            raise CommandError(f"The step {folder} of {model.name} is missing in {source}: run modelctl lint {source}.")
        (target / folder).mkdir(parents=True)
        for path in (source / folder).iterdir():
            if path.name not in (CONFIG, VARIANTS):
                (target / folder / path.name).symlink_to(path.resolve())
        for path in ((source / folder) / CONFIG, *sorted((source / folder / VARIANTS).glob("*.pbtxt"))):
            copy = target / folder / path.relative_to(source / folder)
            copy.parent.mkdir(exist_ok=True)
            if folder == name or setting.batch is not None:
                config = _read(path)
                if setting.batch is not None:
                    _set_batch(config, setting.batch)
                if folder == name:
                    # A variant may have another backend, without this option for threads.
                    config = vary(config, setting if path.name == CONFIG else replace(setting, threads=None))
                copy.write_text(text_format.MessageToString(config, as_utf8=True), "utf-8")
            else:
                shutil.copyfile(path, copy)


def _read(path: Path) -> Any:
    config = read_config(path)
    if not config.ByteSize():
        raise CommandError(f"{path} cannot be read: run modelctl lint {path.parent}.")
    return config


def _set_batch(config: Any, batch: int) -> None:
    """Set a ModelConfig's max_batch_size, and remove greater preferred sizes, which Triton would refuse."""
    config.max_batch_size = batch
    if config.HasField("dynamic_batching"):
        kept = [size for size in config.dynamic_batching.preferred_batch_size if size <= batch]
        config.dynamic_batching.preferred_batch_size[:] = kept


def vary(config: Any, setting: Setting) -> Any:
    """Return a copy of a ModelConfig with `setting.count` instances in each of its groups, and its queue delay.

    Raises:
        CommandError: when threads are given and ONNX Runtime does not run the model.

    """
    made = type(config)()
    made.CopyFrom(config)
    if not made.instance_group:
        made.instance_group.add()
    for group in made.instance_group:
        group.count = setting.count
    if setting.threads is not None:
        if made.backend != "onnxruntime":
            raise CommandError(f"{made.name} is not run by ONNX Runtime: omit --threads.")
        made.parameters[THREADS].string_value = str(setting.threads)
    if setting.delay_us is not None:
        made.dynamic_batching.max_queue_delay_microseconds = setting.delay_us
    return made
