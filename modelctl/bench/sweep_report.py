"""The results of `modelctl bench sweep`: the front as a table and a chart, and the recommended setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelctl.bench import apply, chart
from modelctl.bench.chart import Dot, Scatter
from modelctl.bench.front import CLOSE, Figure, Point, front, recommended
from modelctl.bench.results import Machine, Pair, Report, Rounds, Spread, figure, ratios, spreads, table
from modelctl.bench.sweep_order import Sweep
from modelctl.bench.trial import Trial

COMPARED = ("throughput", "p99", "cpu", "memory")
BOUND_FACTOR = 2.0
"""Default bound of p99, relative to that of `Sweep.least`: a request may wait as long as it takes by itself."""


def of(
    order: Sweep, screened: Mapping[Point, Sequence[Trial]], repeated: Mapping[Point, Sequence[Trial]], machine: Machine
) -> tuple[Report, Point | None]:
    """Return the results, and the recommended point; None when no p99 is within the bound."""
    rounds = {point.label: [trial.metrics() for trial in each] for point, each in repeated.items()}
    figures = {point: _figure(each) for point, each in repeated.items()}
    bound = order.bound or BOUND_FACTOR * figures[order.least].p99
    best, line = recommended(figures, bound), front(figures)
    block = "" if best is None else apply.block(apply.changes(best.setting, plans=order.with_plans))
    title = f"Settings of {order.varied}"
    pairs = _pairs(order, list(figures), best)
    report = Report(
        name=order.file,
        title=title,
        command=order.command,
        machine=machine,
        subject={
            "model": order.model.name,
            "varied": order.varied,
            "networks": next(trial.networks for each in screened.values() for trial in each),
            "configured": _words(order.least),
            "p99_bound_ms": round(bound, 3),
            "recommended": None if best is None else {**_words(best), "callers": best.callers, "block": block},
            "front": [point.label for point in line],
            "settings": {point.label: {**_words(point), "callers": point.callers} for point in screened},
            "screened": {
                point.label: [{"throughput": round(one.throughput, 3), "p99": round(one.p99, 3)} for one in looks]
                for point, looks in screened.items()
            },
        },
        rounds=rounds,
        compared=COMPARED,
        text="\n\n".join([_advice(order, best, block, bound), _table(order, figures, rounds, pairs), _method(order)]),
        chart=_chart(title, screened, figures, line, best),
        ratios=ratios(rounds, COMPARED, pairs),
    )
    return report, best


def best_of(looks: Sequence[Trial]) -> Figure:
    """Return the best figures of a point's short looks."""
    return Figure(max(one.throughput for one in looks), min(one.p99 for one in looks))


def _figure(trials: Sequence[Trial]) -> Figure:
    return Figure(
        Spread.of([trial.throughput for trial in trials]).median, Spread.of([trial.p99 for trial in trials]).median
    )


def _words(point: Point) -> dict[str, Any]:
    setting = point.setting
    return {"max_batch_size": setting.batch, "instances": setting.count, "queue_delay_us": setting.delay_us}


def _pairs(order: Sweep, points: Sequence[Point], best: Point | None) -> list[Pair]:
    """Return pairs with the configured setting under the same callers: of the recommended point, then of all others."""
    base = order.settings[0]
    pairs = [] if best is None else [Pair("recommended/configured", best.label, best.with_setting(base).label)]
    return pairs + [
        Pair(f"{point.label}/configured", point.label, point.with_setting(base).label)
        for point in points
        if point.setting != base
    ]


def _advice(order: Sweep, best: Point | None, block: str, bound: float) -> str:
    why = "from --p99-ms" if order.bound else f"twice that of the configured setting, callers: {order.least.callers}"
    within = f"a p99 of at most {figure(bound)} ms ({why})"
    if best is None:
        return f"No setting has {within}: nothing is recommended."
    now = ", the configured setting" if best.setting == order.settings[0] else ""
    return f"Recommended, for {best.callers} callers and {within}: {best.server}{now}.\n\n```yaml\n{block}\n```"


def _table(order: Sweep, figures: Mapping[Point, Figure], rounds: Rounds, pairs: Sequence[Pair]) -> str:
    measured, found = spreads(rounds), ratios(rounds, COMPARED, pairs)
    line = set(front(figures))

    def cell(point: Point, metric: str) -> str:
        ratio = found.get(f"{metric} {point.label}/configured")
        value = figure(measured[point.label][metric].median)
        if ratio is None:
            return value
        spread = f"; {ratio.low:.2f} to {ratio.high:.2f}" if metric == "throughput" and ratio.low < ratio.high else ""
        return f"{value} ({ratio.median:.2f}{spread})"

    header = ["batch x instances + delay", "callers", "inferences/s", "p99, ms", "CPU, ms", "memory, MB", "front"]
    rows = [
        [
            f"{point.setting.batch} x {point.setting.count} + {point.setting.delay_us} us"
            + (" (now)" if point.setting == order.settings[0] else ""),
            str(point.callers),
            *(cell(point, metric) for metric in COMPARED),
            "yes" if point in line else "-",
        ]
        for point in sorted(figures, key=lambda point: figures[point].throughput)
    ]
    return table(header, rows)


def _method(order: Sweep) -> str:
    return (
        f"Short looks at all {len(order.points)} points: {order.looks} of {order.screen:g} s each. Their best figures "
        "count, because a disturbance makes no figure better. The points above, near the front of throughput and p99, "
        f"were then measured in turns, for {order.seconds:g} s in each round; rounds: {order.rounds}. In brackets: the "
        "ratio to the configured setting (now) under the same callers, as the median of the rounds; for inferences/s "
        "also the lowest and the highest round.\n"
        f"Recommended is the highest throughput within the bound; of settings within {CLOSE:.0%} of it, the one with "
        "the fewest instances, then the lowest delay and the smallest batch."
    )


def _chart(
    title: str,
    screened: Mapping[Point, Sequence[Trial]],
    figures: Mapping[Point, Figure],
    line: Sequence[Point],
    best: Point | None,
) -> str:
    """Draw the points: repeated ones at their medians, the others at their best figures."""

    def dot(point: Point) -> Dot:
        one = figures.get(point) or best_of(screened[point])
        return Dot(one.throughput, one.p99, point.label)

    others = [dot(point) for point in {**screened, **figures} if point not in line]
    panel = Scatter(
        "throughput, inferences/s",
        "p99, ms (line: the front; ring: recommended)",
        others,
        [dot(point) for point in line],
        dot(best) if best else None,
    )
    return chart.draw(title, [panel])
