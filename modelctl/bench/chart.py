"""Charts as SVG: bars or points, one panel for each unit, readable on light and on dark pages.

By hand, because the installed `modelctl bench` draws them: matplotlib would be a runtime dependency, and cannot write
an SVG that follows the page's colour scheme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from modelctl.bench.results import Spread

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 300, 300, 62, 66, 48, 12
STYLE = """
  .page { fill: #ffffff } text { fill: #1f2328; font: 12px system-ui, sans-serif } .title { font-weight: 600 }
  .grid { stroke: #d1d9e0 } .range { stroke: #1f2328 } .bar0 { fill: #0969da } .bar1 { fill: #bc4c00 }
  .line { stroke: #0969da; fill: none } .chosen { stroke: #1f2328; stroke-width: 2; fill: none }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #f0f6fc } .grid { stroke: #3d444d } .range { stroke: #f0f6fc }
    .bar0 { fill: #4493f8 } .bar1 { fill: #db6d28 } .line { stroke: #4493f8 } .chosen { stroke: #f0f6fc }
  }
"""


@dataclass(frozen=True)
class Series:
    """Bars of one colour: for each category a median, with the range of its rounds."""

    name: str
    values: Sequence[Spread]


@dataclass(frozen=True)
class Panel:
    """Bars of one unit, in two series at most. `y` names the metric and its unit, `x` the categories.

    `width` is in pixels; long names of categories need more.
    """

    y: str
    x: str
    categories: Sequence[str]
    series: Sequence[Series]
    width: int = WIDTH


@dataclass(frozen=True)
class Dot:
    """One point of a scatter; `name` is its tooltip."""

    x: float
    y: float
    name: str


@dataclass(frozen=True)
class Scatter:
    """Points over two axes that start at 0.

    Attributes:
        x: name and unit of the horizontal axis.
        y: name and unit of the vertical axis.
        others: points without a line.
        front: points that a line joins, in this order.
        chosen: the point with a ring.

    """

    x: str
    y: str
    others: Sequence[Dot]
    front: Sequence[Dot]
    chosen: Dot | None = None
    width: int = 2 * WIDTH


def draw(title: str, panels: Sequence[Panel | Scatter], columns: int | None = None) -> str:
    """Return an SVG of panels of equal width, `columns` in a row (by default all).

    The thin lines show the lowest and the highest round.
    """
    columns = min(columns or len(panels), len(panels))
    width, height = panels[0].width * columns, HEIGHT * math.ceil(len(panels) / columns)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        _text(12, 22, title, "start", "title"),
    ]
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        drawn = _scatter(panel) if isinstance(panel, Scatter) else _panel(panel)
        parts += [f'<g transform="translate({column * width // columns} {row * HEIGHT})">', *drawn, "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def ticks(greatest: float, most: int = 5) -> list[float]:
    """Return round numbers from 0 to at least `greatest`, in steps of 1, 2 or 5 times a power of ten."""
    if greatest <= 0:
        return [0.0, 1.0]
    size = 10 ** math.floor(math.log10(greatest / most))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if greatest / (size * factor) <= most)
    return [step * number for number in range(math.ceil(greatest / step - 1e-9) + 1)]


def _panel(panel: Panel) -> list[str]:
    marks = ticks(max(value.high for series in panel.series for value in series.values))
    floor, right = HEIGHT - BOTTOM, panel.width - RIGHT

    def height(value: float) -> float:
        return floor - (floor - TOP) * value / marks[-1]

    made = []
    for mark in marks:
        made.append(f'<path class="grid" d="M{LEFT} {height(mark):.1f}H{right}"/>')
        made.append(_text(LEFT - 6, height(mark) + 4, f"{mark:g}", "end"))
    slot = (right - LEFT) / len(panel.categories)
    bar = min(slot * 0.7 / len(panel.series), 34)
    for index, category in enumerate(panel.categories):
        centre = LEFT + slot * (index + 0.5)
        made.append(_text(centre, floor + 18, category, "middle"))
        for number, series in enumerate(panel.series):
            value, left = series.values[index], centre + bar * (number - len(panel.series) / 2)
            top, middle = height(value.median), left + bar / 2
            made.append(
                f'<rect class="bar{number}" x="{left:.1f}" y="{top:.1f}" width="{bar - 2:.1f}" '
                f'height="{floor - top:.1f}"><title>{escape(f"{series.name}, {category}: {value.median:.4g}")}'
                f'</title></rect><path class="range" d="M{middle - 1:.1f} {height(value.low):.1f}'
                f'V{height(value.high):.1f}"/>'
            )
    made += _labels(panel, (LEFT + right) / 2)
    return made


def _scatter(panel: Scatter) -> list[str]:
    dots = [*panel.others, *panel.front]
    across, up = ticks(max((dot.x for dot in dots), default=0)), ticks(max((dot.y for dot in dots), default=0))
    floor, right = HEIGHT - BOTTOM, panel.width - 2 * RIGHT

    def place(dot: Dot) -> tuple[float, float]:
        return LEFT + (right - LEFT) * dot.x / across[-1], floor - (floor - TOP) * dot.y / up[-1]

    made = [_text(12, 48, panel.y, "start"), _text((LEFT + right) / 2, HEIGHT - 10, panel.x, "middle")]
    for mark in up:
        _, y = place(Dot(0, mark, ""))
        made += [f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>', _text(LEFT - 6, y + 4, f"{mark:g}", "end")]
    for mark in across:
        x, _ = place(Dot(mark, 0, ""))
        made.append(_text(x, floor + 18, f"{mark:g}", "middle"))
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in map(place, panel.front))
    made += [f'<path class="line" d="M{line}"/>'] if line else []
    for kind, group in (("bar1", panel.others), ("bar0", panel.front)):
        for dot in group:
            x, y = place(dot)
            name = escape(f"{dot.name}: {dot.x:.4g}, {dot.y:.4g}")
            made.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{name}</title></circle>')
    if panel.chosen:
        x, y = place(panel.chosen)
        made.append(f'<circle class="chosen" cx="{x:.1f}" cy="{y:.1f}" r="7"/>')
    return made


def _labels(panel: Panel, centre: float) -> list[str]:
    made = [_text(centre, HEIGHT - 10, panel.x, "middle"), _text(12, 48, panel.y, "start")]
    if len(panel.series) > 1:
        for number, series in enumerate(panel.series):
            x = panel.width - RIGHT - 52 * (len(panel.series) - number)
            made.append(f'<rect class="bar{number}" x="{x}" y="39" width="10" height="10"/>')
            made.append(_text(x + 14, 48, series.name, "start"))
    return made


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
