"""What `modelctl bench sweep` measures: a grid of settings, each under several numbers of callers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from modelctl.bench import apply, copy
from modelctl.bench.copy import Setting
from modelctl.bench.front import Point
from modelctl.bench.load import Load
from modelctl.bench.order import Place
from modelctl.errors import CommandError
from modelctl.lint.linter import lint
from modelctl.models.repository import Model, Repository, read_config
from modelctl.plans import choice

BATCHES, INSTANCES, DELAYS, CALLERS = (1, 4, 16), (1, 2), (0, 2000), (1, 4, 8, 16, 32)
QUICK_BATCHES, QUICK_INSTANCES, QUICK_DELAYS, QUICK_CALLERS = (1, 8), (1,), (0,), (1, 8)
MAX_REPEATED = 10
"""Maximum number of points near the front that are measured again."""
START_S, WARM_UP_S = 5.0, 0.5
QUICK_SCREEN_S, LOOKS = 1.0, 2
PLANS = f"{copy.VARIANTS}/{choice.VARIANT}.pbtxt"


@dataclass(frozen=True)
class Sweep(Place):
    """The settings to measure, and how long.

    Attributes:
        varied: the model whose instances and queue delay vary; all steps get the batch.
        settings: of the server; the first is the configured one.
        looks: number of short passes over all points, before some are measured again.
        screen: seconds of load for each point in a short pass.
        seconds: seconds of load for each point in a round.
        patience: longest wait in seconds for an idle machine before each measurement.
        bound: highest p99 of a recommended setting, in milliseconds; None for twice that of `least`.
        with_plans: whether the network runs as a TensorRT plan.

    """

    model: Model
    varied: str
    settings: tuple[Setting, ...]
    callers: tuple[int, ...]
    looks: int
    screen: float
    seconds: float
    rounds: int
    patience: float
    bound: float | None
    with_plans: bool

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Sweep:
        """Return the order of a command line; raises CommandError when the model cannot be swept."""
        repository = Repository(arguments.models)
        repository.wanted([arguments.name])
        model = repository.models[arguments.name]
        varied = copy.varied(model, None)
        chosen = choice.choose(arguments.models, [model.name, *model.steps], choice.this_machine())
        if arguments.apply:
            apply.check(arguments.models, model.name)
        order = cls(
            models=arguments.models,
            backends=arguments.backends,
            state=arguments.state,
            model=model,
            varied=varied,
            settings=(),
            callers=arguments.callers or (QUICK_CALLERS if arguments.quick else CALLERS),
            looks=1 if arguments.quick else LOOKS,
            screen=min(arguments.seconds, QUICK_SCREEN_S) if arguments.quick else arguments.screen,
            seconds=arguments.seconds,
            rounds=arguments.rounds,
            patience=arguments.patience,
            bound=arguments.p99_ms,
            with_plans=chosen.plans and (arguments.models / varied / PLANS).is_file(),
        )
        order._check()
        settings = _grid(
            arguments.batch_sizes or (QUICK_BATCHES if arguments.quick else BATCHES),
            arguments.instances or (QUICK_INSTANCES if arguments.quick else INSTANCES),
            arguments.delays or (QUICK_DELAYS if arguments.quick else DELAYS),
        )
        return order.with_settings(tuple(settings))

    @property
    def configured(self) -> Setting:
        """The setting that the repository has now."""
        config = read_config(self.models / self.varied / (PLANS if self.with_plans else copy.CONFIG))
        count = max([group.count for group in config.instance_group] or [1])
        delay = config.dynamic_batching.max_queue_delay_microseconds
        return Setting(max(count, 1), batch=config.max_batch_size, delay_us=delay)

    @property
    def points(self) -> list[Point]:
        """All settings, each under all numbers of callers."""
        return [Point(setting, callers) for setting in self.settings for callers in self.callers]

    @property
    def least(self) -> Point:
        """The configured setting under the fewest callers; its p99 is the baseline for all others."""
        return Point(self.settings[0], min(self.callers))

    def load(self, callers: int, seconds: float) -> Load:
        """Return the load of one point."""
        return Load(callers, seconds, min(WARM_UP_S, seconds / 2))

    @property
    def estimate_s(self) -> float:
        """Upper estimate of the duration in seconds, without waiting for an idle machine."""
        again = min(2 * MAX_REPEATED + 1, len(self.points))
        look = len(self.settings) * START_S + len(self.points) * (self.screen + WARM_UP_S)
        return self.looks * look + self.rounds * (
            min(again, len(self.settings)) * START_S + again * (self.seconds + WARM_UP_S)
        )

    @property
    def command(self) -> str:
        """The command line that repeats it on any machine."""

        def numbers(values: Sequence[int | None]) -> str:
            return ",".join(str(value) for value in sorted({value for value in values if value is not None}))

        return " ".join(
            [
                f"modelctl bench sweep {self.model.name}",
                f"--batch-sizes {numbers([one.batch for one in self.settings])}",
                f"--instances {numbers([one.count for one in self.settings])}",
                f"--delays {numbers([one.delay_us for one in self.settings])}",
                f"--callers {numbers(self.callers)}",
                f"--screen {self.screen:g} --seconds {self.seconds:g} --rounds {self.rounds}",
                *([f"--p99-ms {self.bound:g}"] if self.bound else []),
            ]
        )

    @property
    def file(self) -> str:
        """The name of the files with the results."""
        return f"sweep-{self.model.name}"

    def with_settings(self, settings: Sequence[Setting]) -> Sweep:
        """Return the same sweep of these settings, after the configured one.

        Raises:
            CommandError: when a setting has a larger batch than the plan was built for.

        """
        configured = self.configured
        greatest = max(setting.batch or 0 for setting in settings)
        if self.with_plans and greatest > (configured.batch or 0):
            raise CommandError(
                f"The plan of {self.varied} was built for batches of at most {configured.batch}: give smaller "
                "--batch-sizes, or set max_batch_size and run modelctl plan."
            )
        return type(self)(**{**vars(self), "settings": tuple(dict.fromkeys([configured, *settings]))})

    def _check(self) -> None:
        """Raise CommandError when the model takes no batches, or when lint finds an error in it."""
        if not self.configured.batch:
            raise CommandError(f"{self.varied} takes no batches: measure its instances with modelctl bench instances.")
        names = (self.model.name, *self.model.steps)
        _, findings = lint(self.models.resolve())
        faults = [one for one in findings if one.model in names and one.rule.severity == "error"]
        if faults:
            first = faults[0]
            raise CommandError(
                f"{first.model} would not serve well as it is, {first.rule.code}: {first.sentence} "
                f"Fix what modelctl lint {self.models / first.model} reports, then sweep."
            )


def _grid(batches: Sequence[int], counts: Sequence[int], delays: Sequence[int]) -> Iterator[Setting]:
    """Yield all settings. Batches of 1 get no delay: their requests wait for no others, so it would change nothing."""
    for batch, count in product(batches, counts):
        for delay in delays if batch > 1 else (0,):
            yield Setting(count, batch=batch, delay_us=delay)
