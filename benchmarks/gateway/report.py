"""What `python -m benchmarks gateway` has measured: ratios to Triton asked directly, then a table and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelctl.bench import chart
from modelctl.bench.chart import Panel, Series
from modelctl.bench.results import Machine, Report, Spread, figure, spreads, table

DIRECT, GATEWAY, JOINED = WAYS = ("direct", "gateway", "joined")
TITLE = "The gateway before a model that answers at once"

Measured = Mapping[tuple[str, int], list[dict[str, float]]]
"""Way and number of callers -> rounds -> metric -> value."""


def of(
    command: str, callers: Sequence[int], measured: Measured, worker_mb: float, workers: int, machine: Machine
) -> Report:
    """Return the results of all rounds."""
    rounds = {f"{way}@{count}": each for (way, count), each in measured.items()}
    found = compare(measured, callers)
    return Report(
        name="gateway",
        title=TITLE,
        command=command,
        machine=machine,
        subject={"callers": list(callers), "workers": workers, "worker_mb": round(worker_mb, 1)},
        rounds=rounds,
        compared=(),
        text=f"{_ratios(found, callers)}\n\n{_meaning(measured, worker_mb, workers)}\n\n{_figures(rounds)}",
        chart=_chart(measured, callers),
        ratios=found,
    )


def compare(measured: Measured, callers: Sequence[int]) -> dict[str, Spread]:
    """Return throughputs relative to Triton's own, such as `gateway/direct@8`, and what a lone caller waits longer.

    `added p50 ms@1` are milliseconds: the median latency through the gateway less that of Triton asked directly.
    """
    made = {}
    for count in callers:
        for way in (GATEWAY, JOINED):
            pairs = list(zip(measured[way, count], measured[DIRECT, count], strict=True))
            ratios = [ours["throughput"] / theirs["throughput"] for ours, theirs in pairs]
            made[f"{way}/{DIRECT}@{count}"] = Spread.of(ratios)
            if count == 1 and way == GATEWAY:
                made["added p50 ms@1"] = Spread.of([ours["p50"] - theirs["p50"] for ours, theirs in pairs])
    return made


def _spread(value: Spread) -> str:
    return (
        f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})" if value.low < value.high else f"{value.median:.2f}"
    )


def _ratios(found: Mapping[str, Spread], callers: Sequence[int]) -> str:
    rows = [
        [str(count), *(_spread(found[f"{way}/{DIRECT}@{count}"]) for way in (GATEWAY, JOINED))] for count in callers
    ]
    return table(["callers", f"{GATEWAY}/{DIRECT}", f"{JOINED}/{DIRECT}"], rows)


def _meaning(measured: Measured, worker_mb: float, workers: int) -> str:
    turns = [one for each in measured.values() for one in each]
    others = [one["cores_others"] for one in turns]
    count = len(next(iter(measured.values())))
    processes = "one process" if workers == 1 else f"{workers} processes"
    return (
        f"Requests a second relative to Triton asked directly by perf_analyzer over gRPC: median of {count} rounds,\n"
        "the least and the greatest. wrk asks the gateway over HTTP: `gateway` sends each item in a call of its own,\n"
        "`joined` lets texts that wait share one, as it does by default. The load generator uses the same cores,\n"
        f"the gateway runs as {processes}, with a log line for every request. A process of it took {worker_mb:.0f} MB\n"
        f"after all runs. Other programs kept {min(others):.1f} to {max(others):.1f} cores busy."
    )


def _figures(rounds: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    names = ("throughput", "p50", "p99", "gateway_ms", "triton_ms", "load_ms")
    rows = [[label, *(figure(one[name].median) for name in names)] for label, one in spreads(rounds).items()]
    header = ["how@callers", "requests/s", "p50, ms", "p99, ms", "gateway CPU, ms", "Triton CPU, ms", "load CPU, ms"]
    return table(header, rows) + "\n\nCPU: processor milliseconds for a request, by the operating system."


def _chart(measured: Measured, callers: Sequence[int]) -> str:
    categories = list(map(str, callers))

    def series(way: str, metric: str) -> Series:
        return Series(way, [Spread.of([one[metric] for one in measured[way, count]]) for count in callers])

    ratio = Panel(
        "requests/s to Triton's own",
        "callers",
        categories,
        [
            Series(way, [compare(measured, [count])[f"{way}/{DIRECT}@{count}"] for count in callers])
            for way in (GATEWAY, JOINED)
        ],
    )
    cost = Panel(
        "gateway CPU of a request, ms", "callers", categories, [series(way, "gateway_ms") for way in (GATEWAY, JOINED)]
    )
    return chart.draw(TITLE, [ratio, cost])
