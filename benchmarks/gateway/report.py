"""The results of `python -m benchmarks gateway`: ratios to Triton called directly, then a table and a chart."""

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
    """Return throughputs relative to Triton's own, such as `gateway/direct@8`, and the added latency of a lone caller.

    `added p50 ms@1` is in milliseconds: the median latency through the gateway minus that of Triton called directly.
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
        f"Requests per second relative to Triton called directly by perf_analyzer over gRPC: median of {count}\n"
        "rounds, with the smallest and the largest. wrk calls the gateway over HTTP: `gateway` sends each item in\n"
        "a call of its own, `joined` coalesces waiting texts, which is the default. The load generator uses the\n"
        f"same cores. The gateway runs as {processes} and writes a log line per request. Its largest process took\n"
        f"{worker_mb:.0f} MB after all runs. Other programs kept {min(others):.1f} to {max(others):.1f} cores busy."
    )


def _figures(rounds: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    names = ("throughput", "p50", "p99", "gateway_ms", "triton_ms", "load_ms")
    rows = [[label, *(figure(one[name].median) for name in names)] for label, one in spreads(rounds).items()]
    header = ["way@callers", "requests/s", "p50, ms", "p99, ms", "gateway CPU, ms", "Triton CPU, ms", "load CPU, ms"]
    return table(header, rows) + "\n\nCPU: processor milliseconds per request, as the operating system counts them."


def _chart(measured: Measured, callers: Sequence[int]) -> str:
    categories = list(map(str, callers))

    def series(way: str, metric: str) -> Series:
        return Series(way, [Spread.of([one[metric] for one in measured[way, count]]) for count in callers])

    ratio = Panel(
        "requests/s relative to Triton's own",
        "callers",
        categories,
        [
            Series(way, [compare(measured, [count])[f"{way}/{DIRECT}@{count}"] for count in callers])
            for way in (GATEWAY, JOINED)
        ],
    )
    cost = Panel(
        "gateway CPU per request, ms", "callers", categories, [series(way, "gateway_ms") for way in (GATEWAY, JOINED)]
    )
    return chart.draw(TITLE, [ratio, cost])
