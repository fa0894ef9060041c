"""Results as medians and ratios, and as the files that the documentation quotes.

A ratio is computed within each round, between settings that ran one after the other: a disturbance of the whole round
slows both of them. The median over the rounds is reported; the lowest and the highest round show how far to trust it.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from modelctl.bench.memory import MB
from modelctl.console import say
from modelctl.errors import CommandError
from modelctl.plans.choice import nvidia_smi

Rounds = Mapping[str, Sequence[Mapping[str, float]]]
"""Setting -> its rounds -> metric -> value. By default, all settings are compared with the first."""


@dataclass(frozen=True)
class Pair:
    """Two settings that are compared: `over` relative to `under`, by a readable name such as `2/1`."""

    name: str
    over: str
    under: str


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(median(values), min(values), max(values))


def spreads(rounds: Rounds) -> dict[str, dict[str, Spread]]:
    """Return each setting's metrics over its rounds."""
    return {
        setting: {metric: Spread.of([one[metric] for one in measured]) for metric in measured[0]}
        for setting, measured in rounds.items()
    }


def to_first(rounds: Rounds) -> list[Pair]:
    """Return the pairs of every other setting with the first."""
    first, *others = rounds
    return [Pair(f"{setting}/{first}", setting, first) for setting in others]


def ratios(rounds: Rounds, metrics: Sequence[str], pairs: Sequence[Pair] | None = None) -> dict[str, Spread]:
    """Return the ratios of the pairs' metrics, by names such as `throughput 2/1`; by default of the pairs `to_first`.

    There is no ratio where the denominator is 0.
    """
    made = {}
    for metric in metrics:
        for pair in to_first(rounds) if pairs is None else pairs:
            both = zip(rounds[pair.over], rounds[pair.under], strict=True)
            values = [(one[metric], other[metric]) for one, other in both]
            if all(under for _, under in values):
                made[f"{metric} {pair.name}"] = Spread.of([over / under for over, under in values])
    return made


def figure(value: float) -> str:
    """Return a number with three digits, or with all digits before the point when those are more."""
    decimals = next((decimals for least, decimals in ((100, 0), (10, 1), (1, 2)) if value >= least), 3)
    return f"{value:.{decimals}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that is aligned as plain text too; numbers to the right, the first column to the left."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    ruler = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(header), f"|{ruler}|", *map(line, rows)])


@dataclass(frozen=True)
class Machine:
    """The machine that was measured, without anything that identifies it."""

    cores: int
    architecture: str
    memory_gb: int
    gpu: str
    python: str

    @classmethod
    def this(cls) -> Machine:
        """Return this machine, with the cores that this process may use."""
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls(
            cores=len(os.sched_getaffinity(0)),
            architecture=platform.machine(),
            memory_gb=round(pages / MB / 1000),
            gpu=nvidia_smi("name"),
            python=platform.python_version(),
        )

    def sentence(self) -> str:
        """Return the machine in words."""
        gpu = self.gpu or "no GPU"
        return f"{self.cores}-core {self.architecture} machine, {self.memory_gb} GB, {gpu}; Python {self.python}"


@dataclass(frozen=True)
class Report:
    """One measurement, ready to be printed and written.

    Attributes:
        name: of its files, without suffix.
        title: heading of page and chart.
        command: command line that repeats the measurement.
        subject: further fields of the JSON.
        rounds: all figures.
        compared: metrics that get ratios.
        text: table and sentences, in Markdown.
        chart: an SVG.
        ratios: None for those of each setting to the first.

    """

    name: str
    title: str
    command: str
    machine: Machine
    subject: Mapping[str, Any]
    rounds: Rounds
    compared: Sequence[str]
    text: str
    chart: str
    ratios: Mapping[str, Spread] | None = None

    def as_json(self) -> str:
        """Return one object; `ratios` is flat, and `ranges` has the lowest and the highest round of each ratio."""
        found = ratios(self.rounds, self.compared) if self.ratios is None else self.ratios
        measured = spreads(self.rounds)
        return json.dumps(
            {
                "title": self.title,
                "command": self.command,
                "machine": asdict(self.machine),
                **self.subject,
                "medians": {
                    setting: {metric: round(value.median, 3) for metric, value in metrics.items()}
                    for setting, metrics in measured.items()
                },
                "ratios": {name: round(ratio.median, 4) for name, ratio in found.items()},
                "ranges": {name: [round(ratio.low, 4), round(ratio.high, 4)] for name, ratio in found.items()},
                "rounds": {
                    setting: [{metric: round(value, 3) for metric, value in one.items()} for one in each]
                    for setting, each in self.rounds.items()
                },
            },
            indent=2,
        )

    def page(self) -> str:
        """Return a Markdown page: how it was measured, `text` and the chart."""
        about = f"Measured by `{self.command}` on a {self.machine.sentence()}."
        return f"# {self.title}\n\n{about}\n\n{self.text}\n\n![{self.title}]({self.name}.svg)\n"

    def publish(self, folder: Path, *, as_json: bool) -> None:
        """Write the files, and then print the table, or the JSON; raises as `write` does."""
        paths = self.write(folder)
        print(self.as_json() if as_json else self.text)
        for path in paths:
            say(f"written: {path}")

    def write(self, folder: Path) -> list[Path]:
        """Write table, JSON and chart; return their paths.

        Raises:
            CommandError: when the folder cannot be written.

        """
        contents = {".md": self.page(), ".json": self.as_json() + "\n", ".svg": self.chart}
        paths = [folder / f"{self.name}{ending}" for ending in contents]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, content in zip(paths, contents.values(), strict=True):
                path.write_text(content, "utf-8")
        except OSError as error:
            raise CommandError(f"{folder} cannot be written ({error.strerror}): give another with --out.") from error
        return paths
