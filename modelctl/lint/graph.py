"""The tensors of an ensemble: which step writes and which reads each, and which steps can run at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from modelctl.lint.repository import Model

STEP = "ensemble_scheduling.step"


@dataclass(frozen=True)
class Use:
    """One end of a tensor.

    Attributes:
        who: the step or the ensemble, as a sentence names it.
        field: its field in the ensemble's config.
        entry: the tensor as that model's config describes it; None when it does not.
        batches: whether that model's dims omit the batch.
        step: the step's index; None for the ensemble itself.

    """

    who: str
    field: str
    writes: bool
    entry: Any
    batches: bool
    step: int | None


class Graph:
    """One ensemble's steps and tensors."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.tensors: dict[str, list[Use]] = {}
        for use, name in (*self._own(), *self._of_steps()):
            self.tensors.setdefault(name, []).append(use)

    def _own(self) -> Iterator[tuple[Use, str]]:
        """Yield the ensemble's inputs, which count as written, and its outputs, which count as read."""
        batches = self._model.message.max_batch_size > 0
        for kind in ("input", "output"):
            for index, entry in enumerate(getattr(self._model.message, kind)):
                yield Use("the ensemble", f"{kind}[{index}]", kind == "input", entry, batches, None), entry.name

    def _of_steps(self) -> Iterator[tuple[Use, str]]:
        for index, step in enumerate(self._model.steps):
            other = self._model.repository.models.get(step.model_name)
            for kind in ("input", "output"):
                entries = {entry.name: entry for entry in getattr(other.message, kind)} if other else {}
                batches = other is not None and other.message.max_batch_size > 0
                for key, name in sorted(getattr(step, f"{kind}_map").items()):
                    field = f'{STEP}[{index}].{kind}_map["{key}"]'
                    yield Use(f"'{step.model_name}'", field, kind == "output", entries.get(key), batches, index), name

    @cached_property
    def _direct(self) -> dict[int, set[int]]:
        """For each step, the steps whose tensors it reads."""
        found: dict[int, set[int]] = {index: set() for index in range(len(self._model.steps))}
        for uses in self.tensors.values():
            writers = {use.step for use in uses if use.writes and use.step is not None}
            if any(use.writes and use.step is None for use in uses):
                continue  # the ensemble's own input is there from the start
            for use in uses:
                if not use.writes and use.step is not None:
                    found[use.step] |= writers
        return found

    @cached_property
    def _before(self) -> dict[int, set[int]]:
        """For each step, all steps that must run before it."""
        found = {index: set(steps) for index, steps in self._direct.items()}
        for _ in found:
            for steps in found.values():
                steps |= {far for near in steps for far in found[near]}
        return found

    @property
    def waiting(self) -> set[int]:
        """The steps that wait, directly or through others, for their own output."""
        return {index for index, steps in self._before.items() if index in steps}

    def pairs_at_once(self) -> Iterator[tuple[int, int]]:
        """Yield the pairs of steps that do not wait for each other."""
        for left, right in combinations(self._before, 2):
            if left not in self._before[right] and right not in self._before[left]:
                yield left, right
