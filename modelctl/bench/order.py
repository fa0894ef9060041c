"""What `modelctl bench instances` measures, from its command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from modelctl.bench import copy
from modelctl.bench.copy import Setting
from modelctl.bench.load import CALLERS, Load
from modelctl.embedded import installation
from modelctl.embedded.ports import Ports
from modelctl.embedded.server import Launch
from modelctl.models.repository import Model, Repository


@dataclass(frozen=True)
class Place:
    """Where the models are, and where a copy of them is served."""

    models: Path
    backends: Path
    state: Path

    def launch(self, models: Path) -> Launch:
        """Return how Triton is started on a copy of the model, on ports that are free now."""
        return Launch(
            installation=installation.find(),
            models=models,
            backends=self.backends,
            state=self.state,
            host="127.0.0.1",
            ports=Ports.free("127.0.0.1"),
            extra=(),
        )


@dataclass(frozen=True)
class Order(Place):
    """The settings to measure, and the load.

    Attributes:
        varied: the model whose instances vary.
        patience: longest wait in seconds for an idle machine before each measurement.

    """

    model: Model
    varied: str
    settings: tuple[Setting, ...]
    load: Load
    rounds: int
    patience: float = 0.0

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Order:
        """Return the order of a command line; raises CommandError when the model or its step does not exist."""
        repository = Repository(arguments.models)
        repository.wanted([arguments.name])
        model = repository.models[arguments.name]
        return cls(
            models=arguments.models,
            backends=arguments.backends,
            state=arguments.state,
            model=model,
            varied=copy.varied(model, arguments.step),
            settings=tuple(
                Setting(count, threads) for count in arguments.counts for threads in arguments.threads or (None,)
            ),
            load=Load(arguments.callers, arguments.seconds, min(1.0, arguments.seconds / 4)),
            rounds=arguments.rounds,
            patience=arguments.patience,
        )

    @property
    def counts(self) -> str:
        """The instances, as --counts takes them."""
        return ",".join(str(count) for count in dict.fromkeys(setting.count for setting in self.settings))

    @property
    def threads(self) -> str:
        """The threads, as --threads takes them; empty when they are as configured."""
        given = dict.fromkeys(setting.threads for setting in self.settings if setting.threads)
        return ",".join(map(str, given))

    @property
    def command(self) -> str:
        """The command line that repeats it on any machine."""
        step = self.varied.removeprefix(f"{self.model.name}_") if self.model.steps else ""
        return " ".join(
            [
                f"modelctl bench instances {self.model.name}",
                *([f"--step {step}"] if step not in ("", "network") else []),
                f"--counts {self.counts}",
                *([f"--threads {self.threads}"] if self.threads else []),
                f"--callers {self.load.callers} --seconds {self.load.seconds:g} --rounds {self.rounds}",
            ]
        )

    @property
    def file(self) -> str:
        """The name of the files with the results."""
        name = self.model.name if self.varied in (self.model.name, f"{self.model.name}_network") else self.varied
        callers = "" if self.load.callers == CALLERS else f"-callers{self.load.callers}"
        return f"instances-{name}{'-threads' if self.threads else ''}{callers}"
