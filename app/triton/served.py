"""One model as Triton serves it: its configuration -> ServedModel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import model_config_pb2

from app.errors import UnsupportedError, VersionNotFoundError
from app.tasks import BY_NAME
from app.tasks.base import Task, Tensor


@dataclass(frozen=True)
class ServedModel:
    """One model that declares a task.

    Attributes:
        fault: why its tensors do not fit the task's contract; empty when they do.
        canary: an input and the label that must come first, for readiness; None when the model names none.

    """

    name: str
    task: Task
    versions: tuple[str, ...]
    default: bool
    max_batch_size: int
    steps: tuple[str, ...]
    fault: str = ""
    canary: Mapping[str, str] | None = field(default=None, repr=False)

    def check(self, version: str | None) -> None:
        """Check that the model can be called, in the given version if any.

        Raises:
            UnsupportedError: when its tensors do not fit the task's contract.
            VersionNotFoundError: when it has no such version.

        """
        if self.fault:
            raise UnsupportedError(f"The model does not fit the task: {self.fault}", model=self.name)
        if version is not None and version not in self.versions:
            served = ", ".join(self.versions)
            raise VersionNotFoundError(f"There is no version {version}; served: {served}.", model=self.name)


def served_model(config: Any, versions: tuple[str, ...]) -> ServedModel | None:
    """Return the model of a configuration; None when it declares no task that the gateway knows."""
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    task = BY_NAME.get(parameters.get("task", ""))
    if task is None:
        return None
    return ServedModel(
        name=config.name,
        task=task,
        versions=versions,
        default=parameters.get("default", "").lower() == "true",
        max_batch_size=config.max_batch_size,
        steps=tuple(step.model_name for step in config.ensemble_scheduling.step),
        fault=contract_fault(config, task),
        canary=_canary(parameters.get("canary", "")),
    )


def contract_fault(config: Any, task: Task) -> str:
    """Return the first way in which a configuration differs from the task's contract; empty when it fits."""
    if config.max_batch_size < 1:
        return "max_batch_size must be 1 or more."
    if config.model_transaction_policy.decoupled:
        return "decoupled models cannot be called with one request and one answer."
    for kind, expected, given in (("input", task.inputs, config.input), ("output", task.outputs, config.output)):
        tensors = {tensor.name: _tensor(tensor) for tensor in given}
        for name, tensor in expected.items():
            if tensors.get(name) != tensor:
                return f"{kind} '{name}' must be {tensor.data_type} {list(tensor.dims)}."
    extra = {tensor.name for tensor in config.input if not tensor.optional} - task.inputs.keys()
    return f"input '{min(extra)}' is not part of the task." if extra else ""


def _tensor(tensor: Any) -> Tensor:
    data_type = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    return Tensor(data_type, tuple(tensor.dims))


def _canary(text: str) -> Mapping[str, str] | None:
    try:
        canary = json.loads(text)
    except ValueError:
        return None
    return canary if isinstance(canary, dict) and all(isinstance(value, str) for value in canary.values()) else None
