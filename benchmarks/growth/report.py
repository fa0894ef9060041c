"""The results of `python -m benchmarks growth`: ratios, a table and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from benchmarks.growth.order import Growth, Setting
from modelctl.bench import chart
from modelctl.bench.chart import Panel, Series
from modelctl.bench.results import Machine, Report, Rounds, figure, ratios, spreads, table

COMPARED = ("cost", "p50")
TITLE = "What a request costs the gateway, as things grow"


def of(order: Growth, measured: Mapping[Setting, Sequence[Mapping[str, float]]], machine: Machine) -> Report:
    """Return the results."""
    rounds = {label: measured[setting] for label, setting in order.labels.items()}
    return Report(
        name="growth",
        title=TITLE,
        command=order.command,
        machine=machine,
        subject={
            "callers": order.callers,
            "seconds": order.seconds,
            "settings": {label: asdict(setting) for label, setting in order.labels.items()},
        },
        rounds=rounds,
        compared=COMPARED,
        text=f"{_table(order, rounds)}\n\n{_sentences(order, rounds)}",
        chart=_chart(order, rounds),
        ratios=ratios(rounds, COMPARED, [pair for axis in order.axes for pair in axis.pairs]),
    )


def _table(order: Growth, rounds: Rounds) -> str:
    pairs = {pair.over: pair for axis in order.axes for pair in axis.pairs}
    measured, found = spreads(rounds), ratios(rounds, COMPARED, list(pairs.values()))

    def ratio(label: str) -> str:
        one = found.get(f"cost {pairs[label].name}") if label in pairs else None
        if one is None:
            return "-"
        return f"{one.median:.2f} ({one.low:.2f} to {one.high:.2f})" if one.low < one.high else f"{one.median:.2f}"

    header = ["setting", "cost / base", "cost, ms", "requests/s", "p50, ms", "p99, ms"]
    rows = [
        [label, ratio(label), *(figure(measured[label][name].median) for name in ("cost", "throughput", "p50", "p99"))]
        for label in rounds
    ]
    return table(header, rows)


def _sentences(order: Growth, rounds: Rounds) -> str:
    others = [one["cores_others"] for each in rounds.values() for one in each]
    lines = [
        "Cost: CPU milliseconds of the gateway per request, for batches per item. Concurrent requests: "
        f"{order.callers}; rounds: {order.rounds}; each setting runs {order.seconds:g} s per round.",
        "Base: " + ", ".join(f"{axis.name} {axis.base}" for axis in order.axes) + ". Each ratio is taken within a "
        "round; the table gives the median of all rounds with the smallest and the largest.",
        f"Other programs kept {min(others):.1f} to {max(others):.1f} cores busy.",
    ]
    again = {label: max(one["reopened"] for one in each) for label, each in rounds.items()}
    if any(again.values()):
        most = ", ".join(f"{count:.0f} at {label}" for label, count in again.items() if count)
        lines.append(f"Idle connections that the gateway closed and that were opened again: {most}.")
    return "\n".join(lines)


def _chart(order: Growth, rounds: Rounds) -> str:
    measured = spreads(rounds)
    panels = []
    for axis in order.axes:
        unit = "cost per item, ms" if axis.name == "batch" else "cost per request, ms"
        values = [measured[f"{axis.name} {value}"]["cost"] for value in axis.values]
        panels.append(Panel(unit, axis.name, list(map(str, axis.values)), [Series("cost", values)]))
    return chart.draw(TITLE, panels, columns=3)
