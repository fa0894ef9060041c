"""The results of `modelctl bench instances` as a table, sentences and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelctl.bench import chart
from modelctl.bench.chart import Panel, Series
from modelctl.bench.copy import Setting
from modelctl.bench.memory import Step
from modelctl.bench.order import Order
from modelctl.bench.results import Machine, Report, Spread, figure, ratios, spreads, table
from modelctl.bench.trial import Trial

COMPARED = ("throughput", "p50", "p99", "cpu", "memory")


def of(order: Order, trials: Mapping[Setting, Sequence[Trial]], machine: Machine) -> Report:
    """Return the results of all trials."""
    rounds = {setting.label: [trial.metrics() for trial in each] for setting, each in trials.items()}
    processes = {setting.label: _processes(each) for setting, each in trials.items()}
    title = f"Instances of {order.varied}"
    return Report(
        name=order.file,
        title=title,
        command=order.command,
        machine=machine,
        subject={
            "model": order.model.name,
            "varied": order.varied,
            "networks": next(trial.networks for each in trials.values() for trial in each),
            "settings": {setting.label: {"instances": setting.count, "threads": setting.threads} for setting in trials},
            "callers": order.load.callers,
            "seconds": order.load.seconds,
            "processes": {
                label: {name: {"processes": one.processes, "mb": round(one.mb, 1)} for name, one in steps.items()}
                for label, steps in processes.items()
            },
        },
        rounds=rounds,
        compared=COMPARED,
        text=f"{_table(order, rounds)}\n\n{_sentences(order, rounds, processes)}",
        chart=_chart(title, order, rounds),
    )


def _processes(trials: Sequence[Trial]) -> dict[str, Step]:
    """Return the processes of each Python-run step, with the median of their memory."""
    return {
        name: Step(step.processes, Spread.of([trial.steps[name].mb for trial in trials if name in trial.steps]).median)
        for name, step in trials[0].steps.items()
    }


def _table(order: Order, rounds: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    measured, found = spreads(rounds), ratios(rounds, COMPARED)
    first = next(iter(rounds))
    gpu = all("gpu_memory" in metrics for metrics in measured.values())

    def cell(metric: str, label: str) -> str:
        ratio = found.get(f"{metric} {label}/{first}")
        value = figure(measured[label][metric].median)
        if ratio is None:
            return value
        spread = f"; {ratio.low:.2f} to {ratio.high:.2f}" if metric == "throughput" and ratio.low < ratio.high else ""
        return f"{value} ({ratio.median:.2f}{spread})"

    header = [
        "instances x threads" if order.threads else "instances",
        f"inferences/s (to {first})",
        "p50, ms",
        "p99, ms",
        "CPU, ms",
        "memory, MB",
        "per extra instance, MB",
        *(["GPU memory, MB"] if gpu else []),
    ]
    rows = [
        [
            setting.label,
            cell("throughput", setting.label),
            cell("p50", setting.label),
            cell("p99", setting.label),
            cell("cpu", setting.label),
            cell("memory", setting.label),
            _extra_memory(order.settings[0], setting, measured),
            *([cell("gpu_memory", setting.label)] if gpu else []),
        ]
        for setting in order.settings
    ]
    return table(header, rows)


def _extra_memory(first: Setting, setting: Setting, measured: Mapping[str, Mapping[str, Spread]]) -> str:
    """Return the MB of memory that each instance beyond the first setting's takes."""
    if setting.count == first.count:
        return "-"
    more = measured[setting.label]["memory"].median - measured[first.label]["memory"].median
    return f"{more / (setting.count - first.count):.0f}"


def _sentences(
    order: Order, rounds: Mapping[str, Sequence[Mapping[str, float]]], processes: Mapping[str, Mapping[str, Step]]
) -> str:
    measured = spreads(rounds)

    def cores(of: str) -> str:
        all_rounds = [one[f"cores_{of}"] for each in rounds.values() for one in each]
        return f"{min(all_rounds):.1f} to {max(all_rounds):.1f}"

    first, steps = next(iter(processes.items()))
    lines = [
        f"Callers: {order.load.callers}; rounds: {order.rounds}, of {order.load.seconds:g} s each. In brackets: the "
        f"ratio to {first}, as the median of the rounds; for inferences/s also the lowest and the highest round.",
        "Memory: host memory of server and steps (PSS) after the load, without the "
        f"{measured[first]['memory_server'].median:.0f} MB of the empty server.",
        "CPU: time of server and steps per inference. Busy cores, lowest to highest round: server "
        f"{cores('server')}, load generator {cores('client')}, other programs {cores('others')}.",
    ]
    if steps:
        each = ", ".join(f"{name} {step.mb / step.processes:.0f} MB" for name, step in steps.items())
        lines.append(f"One process of each Python-run model, with {first}: {each}.")
    return "\n".join(lines)


def _chart(title: str, order: Order, rounds: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    measured = spreads(rounds)
    labels = list(rounds)
    x = "instances x threads" if order.threads else "instances"

    def series(name: str, metric: str) -> Series:
        return Series(name, [measured[label][metric] for label in labels])

    panels = [
        Panel("throughput, inferences/s", x, labels, [series("throughput", "throughput")]),
        Panel("latency, ms", x, labels, [series("p50", "p50"), series("p99", "p99")]),
        Panel("host memory, MB", x, labels, [series("memory", "memory")]),
    ]
    return chart.draw(f"{title}, {order.load.callers} callers", panels)
