"""What `python -m benchmarks growth` has measured, as ratios, a table and a chart."""

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

    header = ["what", "cost to the base's", "cost, ms", "requests/s", "p50, ms", "p99, ms"]
    rows = [
        [label, ratio(label), *(figure(measured[label][name].median) for name in ("cost", "throughput", "p50", "p99"))]
        for label in rounds
    ]
    return table(header, rows)


def _sentences(order: Growth, rounds: Rounds) -> str:
    others = [one["cores_others"] for each in rounds.values() for one in each]
    lines = [
        "Cost: processor milliseconds of the gateway for a request, of batches for an item. Requests under way at "
        f"once: {order.callers}; rounds: {order.rounds}, of {order.seconds:g} s each, in turns.",
        "To the base's: to "
        + ", ".join(f"{axis.base} of {axis.name}" for axis in order.axes)
        + "; within rounds, their median, the least and the greatest.",
        f"Other programs kept {min(others):.1f} to {max(others):.1f} cores busy.",
    ]
    again = {label: max(one["reopened"] for one in each) for label, each in rounds.items()}
    if any(again.values()):
        most = ", ".join(f"{count:.0f} at {label}" for label, count in again.items() if count)
        lines.append(f"Connections that the gateway closed for being idle, and that were opened again: {most}.")
    return "\n".join(lines)


def _chart(order: Growth, rounds: Rounds) -> str:
    measured = spreads(rounds)
    panels = []
    for axis in order.axes:
        unit = "cost of an item, ms" if axis.name == "batch" else "cost of a request, ms"
        values = [measured[f"{axis.name} {value}"]["cost"] for value in axis.values]
        panels.append(Panel(unit, axis.name, list(map(str, axis.values)), [Series("cost", values)]))
    return chart.draw(TITLE, panels, columns=3)
