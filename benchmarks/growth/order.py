"""The settings of `python -m benchmarks growth`: one dimension grows at a time, the others stay at their base."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelctl.bench.load import CALLERS
from modelctl.bench.results import Pair

WARM_UP_S = 0.5
START_S, STUB_S = 5.0, 0.25
"""Seconds that a server with its gateway takes to start, and each process of its models; for the estimate only."""


@dataclass(frozen=True)
class Served:
    """The models of one Triton: ensembles for texts, and tensor models that are never called."""

    ensembles: int = 1
    tensor_models: int = 10

    @property
    def stubs(self) -> int:
        """The number of its models' processes; the model for pictures adds one."""
        return self.ensembles + self.tensor_models + 1


@dataclass(frozen=True)
class Setting:
    """One measured setting.

    Attributes:
        image_kb: size of the picture in each request; 0: requests carry texts.
        batch: texts in a request to the batch route; 0: one text, to the route for single texts.
        connections: number of open connections.

    """

    served: Served = Served()
    image_kb: int = 0
    batch: int = 0
    connections: int = 10


@dataclass(frozen=True)
class Axis:
    """A dimension that grows: its name, its values, and the base that they are compared with."""

    name: str
    values: tuple[int, ...]
    base: int

    def setting(self, value: int) -> Setting:
        """Return the base with another value here."""
        match self.name:
            case "image KB":
                return Setting(image_kb=value)
            case "batch":
                return Setting(batch=value)
            case "tensor models":
                return Setting(Served(tensor_models=value))
            case "ensembles":
                return Setting(Served(ensembles=value))
            case _:
                return Setting(connections=value)

    @property
    def labels(self) -> dict[str, Setting]:
        """Return the settings by their names in results."""
        return {f"{self.name} {value}": self.setting(value) for value in self.values}

    @property
    def pairs(self) -> list[Pair]:
        """Return the comparisons: every other value with the base."""
        return [
            Pair(f"{self.name} {value}/{self.base}", f"{self.name} {value}", f"{self.name} {self.base}")
            for value in self.values
            if value != self.base
        ]

    @property
    def option(self) -> str:
        """Return the option that sets its values."""
        return f"--{self.name.replace(' ', '-').lower()}"


BASE = Setting()
AXES = (
    Axis("connections", (10, 100, 500, 2000), BASE.connections),
    Axis("tensor models", (1, 10, 100), BASE.served.tensor_models),
    Axis("ensembles", (1, 5, 10), BASE.served.ensembles),
    Axis("batch", (1, 8, 32, 64), 1),
    Axis("image KB", (10, 100, 1000, 10000), 10),
)
# At most two servers, whose start takes most of a minute.
QUICK: Mapping[str, tuple[int, ...]] = {
    "connections": (10, 2000),
    "tensor models": (10, 100),
    "ensembles": (1,),
    "batch": (1, 32),
    "image KB": (10, 1000),
}


@dataclass(frozen=True)
class Growth:
    """The order given on the command line.

    Attributes:
        callers: concurrent requests.
        seconds: load per setting and round.
        patience: longest wait in seconds for an idle machine before each measurement.

    """

    state: Path
    seconds: float
    rounds: int
    axes: Sequence[Axis] = AXES
    callers: int = CALLERS
    patience: float = 0.0
    served: tuple[Served, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "served", tuple(dict.fromkeys(setting.served for setting in self.settings)))

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Growth:
        """Return the order of the command line; the values of each axis always include its base."""
        axes = []
        for axis in AXES:
            given = getattr(arguments, axis.option.strip("-").replace("-", "_"))
            values = given or (QUICK[axis.name] if arguments.quick else axis.values)
            axes.append(replace(axis, values=tuple(sorted({axis.base, *values}))))
        return cls(
            state=arguments.state,
            seconds=arguments.seconds,
            rounds=arguments.rounds,
            axes=axes,
            callers=arguments.callers,
            patience=arguments.patience,
        )

    @property
    def labels(self) -> dict[str, Setting]:
        """Return all settings by their names in results; the base has several names."""
        return {label: setting for axis in self.axes for label, setting in axis.labels.items()}

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Return the settings, each once."""
        return tuple(dict.fromkeys(self.labels.values()))

    @property
    def estimate_s(self) -> float:
        """Return the seconds that it takes on an idle machine."""
        starts = sum(START_S + STUB_S * served.stubs for served in self.served)
        return starts + self.rounds * len(self.settings) * (self.seconds + WARM_UP_S)

    @property
    def command(self) -> str:
        """The command line that repeats it."""
        values = " ".join(f"{axis.option} {','.join(map(str, axis.values))}" for axis in self.axes)
        load = f"--callers {self.callers} --seconds {self.seconds:g} --rounds {self.rounds}"
        return f"python -m benchmarks growth {values} {load}"
