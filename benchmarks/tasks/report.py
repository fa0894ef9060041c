"""The results of `python -m benchmarks tasks`: ratios first, then tables and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelctl.bench import chart
from modelctl.bench.chart import Panel, Series
from modelctl.bench.results import Machine, Report, Spread, figure, table

GATEWAY, PROXY, BARE = "gateway", "proxy", "bare"
OTHERS = ("fastapi", "litserve", "bentoml")
"""Candidates for the best peer: servers that run the networks themselves."""
BEST = "best peer"
BUSY = 2
"""Least callers for a comparison with the bare processes: a single caller cannot keep all cores busy."""

Rounds = Mapping[tuple[str, str, int], Sequence[Mapping[str, float]]]


def of(
    command: str,
    workloads: Sequence[str],
    callers: Sequence[int],
    rounds: Rounds,
    extra: Mapping[str, Any],
    machine: Machine,
) -> Report:
    """Return the results of all rounds."""
    bests = {
        f"{work}@{count}": name
        for work in workloads
        for count in callers
        if (name := best(rounds, work, count)) is not None
    }
    found = compare(rounds, workloads, callers)
    title = "The gateway and its peers"
    return Report(
        name="tasks",
        title=title,
        command=command,
        machine=machine,
        subject={"callers": list(callers), "best_peer": bests, **extra},
        rounds={_setting(*key): measured for key, measured in rounds.items()},
        compared=("throughput",),
        text="\n\n".join(
            [
                _ratios(found, workloads, callers, bests),
                _meaning(rounds, extra),
                *(f"## {work}\n\n{_figures(rounds, work)}" for work in workloads),
            ]
        ),
        chart=_chart(title, rounds, workloads, _shown(callers)),
        ratios=found,
    )


def best(rounds: Rounds, work: str, callers: int) -> str | None:
    """Return the server of `OTHERS` with the highest median throughput of the rounds; None if none was measured."""
    medians = {
        name: Spread.of([one["throughput"] for one in rounds[work, name, callers]]).median
        for name in OTHERS
        if (work, name, callers) in rounds
    }
    return max(medians, key=lambda name: medians[name], default=None)


def compare(rounds: Rounds, workloads: Sequence[str], callers: Sequence[int]) -> dict[str, Spread]:
    """Return the gateway's throughput relative to each peer's, per round, by names such as `detect: gateway/bare@8`.

    `best peer` is the same server in all rounds, the one with the best median.
    """
    made = {}
    for work in workloads:
        for count in callers:
            against = {name: (work, name, count) for name in (PROXY, *OTHERS)}
            if count >= BUSY:
                against[BARE] = (work, BARE, 0)
            if (name := best(rounds, work, count)) is not None:
                against[BEST] = (work, name, count)
            for label, key in against.items():
                if key in rounds:
                    pairs = zip(rounds[work, GATEWAY, count], rounds[key], strict=True)
                    made[f"{work}: {GATEWAY}/{label}@{count}"] = Spread.of(
                        [ours["throughput"] / theirs["throughput"] for ours, theirs in pairs]
                    )
    return made


def _setting(work: str, name: str, callers: int) -> str:
    return f"{work}: {name}@{callers}" if callers else f"{work}: {name}"


def _ratios(
    found: Mapping[str, Spread], workloads: Sequence[str], callers: Sequence[int], bests: Mapping[str, str]
) -> str:
    labels = [label for label in (BARE, BEST, PROXY, *OTHERS) if any(f"/{label}@" in name for name in found)]

    def cell(work: str, label: str, count: int) -> str:
        ratio = found.get(f"{work}: {GATEWAY}/{label}@{count}")
        if ratio is None:
            return "-"
        spread = f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.low < ratio.high else ""
        whose = f" {bests[f'{work}@{count}']}" if label == BEST else ""
        return f"{ratio.median:.2f}{spread}{whose}"

    rows = [
        [f"{work} @{count}", *(cell(work, label, count) for label in labels)] for work in workloads for count in callers
    ]
    return table(["workload @callers", *labels], rows)


def _meaning(rounds: Rounds, extra: Mapping[str, Any]) -> str:
    count = len(next(iter(rounds.values())))
    return (
        "The gateway's requests per second relative to each peer's: above 1 the gateway answers more. Rounds: "
        f"{count}. Each ratio is taken within a round; the table gives the median of all rounds with the smallest and "
        "the largest. `bare` is the upper bound: processes without a server. `best peer` is the best server that runs "
        "the networks itself.\n\n"
        "Below, CPU is the processor time per request of all processes of a server, memory their sum (PSS); `gateway` "
        f"and `proxy` include Triton. The gateway's own process takes {extra['gateway_worker_mb']:.0f} MB."
    )


def _figures(rounds: Rounds, work: str) -> str:
    rows = []
    for (_, name, callers), measured in ((key, each) for key, each in rounds.items() if key[0] == work):

        def cell(metric: str, measured: Sequence[Mapping[str, float]] = measured) -> str:
            return figure(Spread.of([one[metric] for one in measured]).median) if metric in measured[0] else "-"

        errors = sum(one["errors"] for one in measured)
        label = f"{name} @{callers}" if callers else name
        rows.append([label, *map(cell, ("throughput", "p50", "p99", "cpu", "memory")), f"{errors:.0f}"])
    rows.sort(key=lambda row: int(row[0].partition("@")[2] or 0))
    return table(["server @callers", "requests/s", "p50, ms", "p99, ms", "CPU, ms", "memory, MB", "errors"], rows)


def _shown(callers: Sequence[int]) -> int:
    """Return the number of callers in the chart: 8, or the highest number if 8 was not measured."""
    return 8 if 8 in callers else max(callers)


def _chart(title: str, rounds: Rounds, workloads: Sequence[str], callers: int) -> str:
    panels = []
    for work in workloads:
        keys = [key for key in rounds if key[0] == work and key[2] in (0, callers)]
        keys.sort(key=lambda key: (GATEWAY, BARE, PROXY, *OTHERS).index(key[1]))
        values = [Spread.of([one["throughput"] for one in rounds[key]]) for key in keys]
        names = [name for _, name, _ in keys]
        panels.append(Panel(f"{work}, requests/s", "server", names, [Series("requests/s", values)], 420))
    return chart.draw(f"{title}, {callers} callers", panels, columns=2)
