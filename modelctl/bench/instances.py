"""`modelctl bench instances`: what more instances of a model cost in memory and gain in throughput and latency.

    for each round, for each count: copy the model -> start Triton -> memory -> load -> memory -> callers -> memory

For an ensemble the instances of one step are counted, by default its network's, and calls go to the ensemble.
"""

from __future__ import annotations

import argparse
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from modelctl import installation
from modelctl.bench import chart, copy, quiet, sample
from modelctl.bench.chart import Panel, Series
from modelctl.bench.copy import Setting
from modelctl.bench.fresh import EXTRA, Fresh, Stopped
from modelctl.bench.load import CALLERS, Cores, Load
from modelctl.bench.memory import Step
from modelctl.bench.results import Machine, Report, Spread, ratios, spreads, table
from modelctl.errors import CommandError
from modelctl.repository import Model, Repository
from modelctl.server import Launch, Ports, on_stop, say, take_state

STEPS = ("preprocess", "network", "postprocess")
COUNTS, MOST = "1,2,3,4", 64
COMPARED = ("throughput", "p50", "p99", "cpu", "memory")
STOPPED = 130  # as a shell says of a command that Ctrl-C ended


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that only this measurement has."""
    parser.add_argument("name", metavar="NAME", help="an ensemble, or a model that takes numbers")
    text = f"the numbers of instances to compare, the first is compared with (default: {COUNTS})"
    parser.add_argument("--counts", type=numbers, default=numbers(COUNTS), metavar="N,N", help=text)
    parser.add_argument("--step", choices=STEPS, help="of an ensemble: whose instances (default: network)")
    text = "with each count also these intra_op_thread_count of ONNX Runtime (default: as configured)"
    parser.add_argument("--threads", type=numbers, metavar="N,N", help=text)


def numbers(text: str) -> tuple[int, ...]:
    """Read different whole numbers from 1 to 64; raises CommandError when it is something else."""
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= MOST for part in parts) or len(set(parts)) < len(parts):
        raise CommandError(f"'{text}' are no numbers to compare: give different ones from 1 to {MOST}, such as 1,2,4.")
    return tuple(map(int, parts))


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write; return the exit code."""
    stopping = threading.Event()
    on_stop(stopping.set)
    try:
        report = measure(Bench.of(arguments), stopping)
    except Stopped:
        say("Stopped: nothing is left running, and nothing was written.")
        return STOPPED
    print(report.as_json() if arguments.json else report.text)
    for path in report.write(arguments.out):
        say(f"written: {path}")
    return 0


@dataclass(frozen=True)
class Bench:
    """What is measured, and how.

    Attributes:
        varied: the model whose instances are counted.
        patience: how many seconds each turn waits for a quiet machine.

    """

    models: Path
    backends: Path
    state: Path
    model: Model
    varied: str
    settings: tuple[Setting, ...]
    load: Load
    rounds: int
    patience: float = 0.0

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Bench:
        """Return what the command line asks for; raises CommandError when the model or its step is not there."""
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


@dataclass(frozen=True)
class Trial:
    """One setting, measured once. Memory in MB, without what the server takes when it is empty.

    Attributes:
        p50: milliseconds, as p99.
        server: what the server takes when it is empty.
        loaded: of the model with its steps, before its first call.
        used: the same, after the load.
        gpu: of all GPUs, whoever uses it, in excess of what was used before; None without a GPU.
        steps: the processes of each Python-run step, after the load.

    """

    throughput: float
    p50: float
    p99: float
    cores: Cores
    server: float
    loaded: float
    used: float
    gpu: float | None
    steps: Mapping[str, Step]

    def metrics(self) -> dict[str, float]:
        """Return the figures by the names that they have in the results."""
        made = {
            "throughput": self.throughput,
            "p50": self.p50,
            "p99": self.p99,
            "memory": self.used,
            "memory_loaded": self.loaded,
            "memory_server": self.server,
            "cpu": 1e3 * self.cores.server / self.throughput,
            "cores_server": self.cores.server,
            "cores_client": self.cores.client,
            "cores_others": self.cores.others,
        }
        return made if self.gpu is None else {**made, "gpu_memory": self.gpu}


def measure(bench: Bench, stopping: threading.Event) -> Report:
    """Measure all settings, in rounds; every other round goes backwards.

    Raises:
        CommandError: when a server does not start, load or answer.
        Stopped: when `stopping` is set; nothing is left running.

    """
    trials: dict[Setting, list[Trial]] = {setting: [] for setting in bench.settings}
    requests = sample.requests(bench.models, bench.model)
    with closing(take_state(bench.state)):
        copied = bench.state / "models"
        try:
            for number in range(bench.rounds):
                for setting in bench.settings[:: -1 if number % 2 else 1]:
                    quiet.wait(bench.patience, stopping)
                    copy.write(bench.models, bench.model, bench.varied, setting, copied)
                    trial = _trial(bench, copied, requests, stopping)
                    trials[setting].append(trial)
                    say(
                        f"Round {number + 1} of {bench.rounds}, {bench.varied} x {setting.label}: "
                        f"{trial.throughput:.1f} inferences/s, p50 {trial.p50:.1f} ms, {trial.used:.0f} MB; "
                        f"others kept {trial.cores.others:.1f} cores busy"
                    )
        finally:
            shutil.rmtree(copied, ignore_errors=True)
    return report(bench, trials, Machine.this())


def _trial(bench: Bench, models: Path, requests: Sequence[bytes], stopping: threading.Event) -> Trial:
    launch = Launch(
        installation=installation.find(),
        models=models,
        backends=bench.backends,
        state=bench.state,
        host="127.0.0.1",
        ports=Ports.free("127.0.0.1"),
        extra=EXTRA,
    )
    with Fresh(launch, bench.model, stopping) as triton:
        empty, gpu = triton.memory(), triton.gpu_memory()
        triton.load()
        loaded = triton.memory()
        answered = triton.ask(bench.load, requests)
        used, gpu_used = triton.memory(), triton.gpu_memory()
    return Trial(
        throughput=answered.throughput,
        p50=answered.percentile(50),
        p99=answered.percentile(99),
        cores=answered.cores,
        server=empty.mb,
        loaded=loaded.mb - empty.mb,
        used=used.mb - empty.mb,
        gpu=None if gpu is None or gpu_used is None else gpu_used - gpu,
        steps=used.steps,
    )


def report(bench: Bench, trials: Mapping[Setting, Sequence[Trial]], machine: Machine) -> Report:
    """Return the results of all trials."""
    rounds = {setting.label: [trial.metrics() for trial in each] for setting, each in trials.items()}
    processes = {setting.label: _processes(each) for setting, each in trials.items()}
    title = f"Instances of {bench.varied}"
    return Report(
        name=bench.file,
        title=title,
        command=bench.command,
        machine=machine,
        subject={
            "model": bench.model.name,
            "varied": bench.varied,
            "settings": {setting.label: {"instances": setting.count, "threads": setting.threads} for setting in trials},
            "callers": bench.load.callers,
            "seconds": bench.load.seconds,
            "processes": {
                label: {name: {"processes": one.processes, "mb": round(one.mb, 1)} for name, one in steps.items()}
                for label, steps in processes.items()
            },
        },
        rounds=rounds,
        compared=COMPARED,
        text=f"{_table(bench, rounds)}\n\n{_sentences(bench, rounds, processes)}",
        chart=_chart(title, bench, rounds),
    )


def _processes(trials: Sequence[Trial]) -> dict[str, Step]:
    """Return the processes of each Python-run step, with the median of what they take."""
    return {
        name: Step(step.processes, Spread.of([trial.steps[name].mb for trial in trials if name in trial.steps]).median)
        for name, step in trials[0].steps.items()
    }


def _table(bench: Bench, rounds: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    measured, found = spreads(rounds), ratios(rounds, COMPARED)
    first = next(iter(rounds))
    gpu = all("gpu_memory" in metrics for metrics in measured.values())

    def cell(metric: str, label: str, digits: int) -> str:
        ratio = found.get(f"{metric} {label}/{first}")
        value = f"{measured[label][metric].median:.{digits}f}"
        if ratio is None:
            return value
        spread = f"; {ratio.low:.2f} to {ratio.high:.2f}" if metric == "throughput" and ratio.low < ratio.high else ""
        return f"{value} ({ratio.median:.2f}{spread})"

    header = [
        "instances x threads" if bench.threads else "instances",
        f"inferences/s (to {first})",
        "p50, ms",
        "p99, ms",
        "CPU, ms",
        "memory, MB",
        "each more, MB",
        *(["GPU memory, MB"] if gpu else []),
    ]
    rows = [
        [
            setting.label,
            cell("throughput", setting.label, 1),
            cell("p50", setting.label, 1),
            cell("p99", setting.label, 1),
            cell("cpu", setting.label, 1),
            cell("memory", setting.label, 0),
            _each_more(bench.settings[0], setting, measured),
            *([cell("gpu_memory", setting.label, 0)] if gpu else []),
        ]
        for setting in bench.settings
    ]
    return table(header, rows)


def _each_more(first: Setting, setting: Setting, measured: Mapping[str, Mapping[str, Spread]]) -> str:
    """Return what an instance beyond the first setting's takes."""
    if setting.count == first.count:
        return "-"
    more = measured[setting.label]["memory"].median - measured[first.label]["memory"].median
    return f"{more / (setting.count - first.count):.0f}"


def _sentences(
    bench: Bench, rounds: Mapping[str, Sequence[Mapping[str, float]]], processes: Mapping[str, Mapping[str, Step]]
) -> str:
    measured = spreads(rounds)

    def cores(of: str) -> str:
        all_rounds = [one[f"cores_{of}"] for each in rounds.values() for one in each]
        return f"{min(all_rounds):.1f} to {max(all_rounds):.1f}"

    first, steps = next(iter(processes.items()))
    lines = [
        f"{bench.load.callers} callers, {bench.load.seconds:g} s each, {bench.rounds} round(s). In brackets: to "
        f"{first}, the median of the rounds, for inferences/s their least and greatest too.",
        "Memory: host memory of server and steps (PSS) after the load, without the "
        f"{measured[first]['memory_server'].median:.0f} MB of the empty server.",
        "CPU: of server and steps, for an inference. Cores busy meanwhile, least to most: server "
        f"{cores('server')}, load generator {cores('client')}, other programs {cores('others')}.",
    ]
    if steps:
        each = ", ".join(f"{name} {step.mb / step.processes:.0f} MB" for name, step in steps.items())
        lines.append(f"One process of each Python-run model, with {first}: {each}.")
    return "\n".join(lines)


def _chart(title: str, bench: Bench, rounds: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    measured = spreads(rounds)
    labels = list(rounds)
    x = "instances x threads" if bench.threads else "instances"

    def series(name: str, metric: str) -> Series:
        return Series(name, [measured[label][metric] for label in labels])

    panels = [
        Panel("throughput, inferences/s", x, labels, [series("throughput", "throughput")]),
        Panel("latency, ms", x, labels, [series("p50", "p50"), series("p99", "p99")]),
        Panel("host memory, MB", x, labels, [series("memory", "memory")]),
    ]
    return chart.draw(f"{title}, {bench.load.callers} callers", panels)
