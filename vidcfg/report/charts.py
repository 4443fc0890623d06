"""Charts as SVG text: styled by the page's classes, one keyboard stop each.

Points carry `data-tip`, which the page shows on hover, touch and arrow keys.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 270
WIDE_WIDTH, WIDE_HEIGHT = 820, 430
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 44
MARKERS = ("circle", "square", "triangle", "diamond", "cross", "star", "ring", "bar")


@dataclass(frozen=True)
class Point:
    """`line` is the number of its line; `low` and `high` are None without an interval.

    `weight` from 0 to 1 is how solid the mark is, `label` stands beside it.
    """

    x: float | int
    y: float | int
    line: int
    tip: str
    low: float | int | None = None
    high: float | int | None = None
    x_low: float | int | None = None
    x_high: float | int | None = None
    weight: float | int = 1.0
    label: str = ""
    is_marked: bool = False


def ticks(low: float | int, high: float | int, *, count: int = 5) -> list[float]:
    """Round numbers from at or above `low` to at or below `high`."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10 ** math.floor(math.log10(span / count))
    step *= next((m for m in (1, 2, 2.5, 5) if span / (step * m) <= count), 10)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(round(i * step, 12)) for i in range(first, last + 1)]


def number(value: float | int, digits: int = 4) -> str:
    """Up to so many significant digits, with a minus sign."""
    text = f"{value:.{digits}g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


@dataclass(frozen=True)
class _Scale:
    low: float | int
    high: float | int
    start: float | int
    stop: float | int

    def __call__(self, value: float | int) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def _scale(
    values: Sequence[float | int],
    start: float | int,
    stop: float | int,
    *,
    pad: float | int = 0.06,
) -> _Scale:
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return _Scale(low - margin, high + margin, start, stop)


def curve_chart(
    points: Sequence[Point],
    *,
    title: str,
    x_name: str,
    y_name: str,
    x_labels: dict[float | int, str] | None = None,
    zero: bool = False,
) -> str:
    """Points over x, those of a line joined in the order of x (not where x only counts cells).

    `x_labels` replaces numbers by names; `zero` draws a line at 0.
    """
    ends = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    x = _scale([p.x for p in points], LEFT, WIDTH - RIGHT)
    y = _scale(ends + ([0.0] if zero else []), HEIGHT - BOTTOM, TOP)
    values = sorted({p.x for p in points})
    marks = values if len(values) <= 9 else ticks(x.low, x.high, count=7)
    parts = _frame(x, y, marks, x_name, y_name, x_labels)
    if zero:
        parts.append(f'<path class="zero" d="M{LEFT} {y(0):.1f}H{WIDTH - RIGHT}"/>')
    lines = sorted({p.line for p in points})
    for index, line in enumerate(lines):
        own = sorted((p for p in points if p.line == line), key=lambda p: p.x)
        shift = (index - (len(lines) - 1) / 2) * 5
        places = [(x(p.x) + shift, y(p.y)) for p in own]
        if x_labels is None and len(own) > 1:
            path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
            parts.append(f'<path class="line s{line % 8}" d="M{path}"/>')
        for p, (a, b) in zip(own, places):
            bar = ""
            if p.low is not None:
                bar = f'<path class="bar" d="M{a:.1f} {y(p.low):.1f}V{y(p.high):.1f}"/>'
            parts.append(_mark(p, a, b, bar))
    return _svg(parts, title, WIDTH, HEIGHT)


def scatter_chart(
    points: Sequence[Point], front: Sequence[int], *, title: str, x_name: str, y_name: str
) -> str:
    """Points with crosses for both intervals; those of a line are joined in their order.

    `front` are the indices that a step line joins.
    """
    xs = [v for p in points for v in (p.x, p.x_low, p.x_high) if v is not None]
    ys = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    x, y = _scale(xs, LEFT, WIDE_WIDTH - RIGHT), _scale(ys, WIDE_HEIGHT - BOTTOM, TOP)
    parts = _frame(x, y, ticks(x.low, x.high, count=8), x_name, y_name, None)
    for line in sorted({p.line for p in points}):
        own = [p for p in points if p.line == line]
        path = "L".join(f"{x(p.x):.1f} {y(p.y):.1f}" for p in own)
        parts.append(f'<path class="thread s{line % 8}" d="M{path}"/>')
    steps = sorted((points[i].x, points[i].y) for i in front)
    if len(steps) > 1:
        path = f"M{x(steps[0][0]):.1f} {y(steps[0][1]):.1f}"
        path += "".join(f"H{x(a):.1f}V{y(b):.1f}" for a, b in steps[1:])
        parts.append(f'<path class="front" d="{path}"/>')
    for p in points:
        a, b = x(p.x), y(p.y)
        bar = ""
        if p.low is not None and p.x_low is not None:
            bar = (
                f'<path class="bar faint" d="M{a:.1f} {y(p.low):.1f}V{y(p.high):.1f}'
                f'M{x(p.x_low):.1f} {b:.1f}H{x(p.x_high):.1f}"/>'
            )
        text = ""
        if p.label:
            text = f'<text class="label" x="{a + 8:.1f}" y="{b - 6:.1f}">{escape(p.label)}</text>'
        parts.append(_mark(p, a, b, bar + text))
    return _svg(parts, title, WIDE_WIDTH, WIDE_HEIGHT)


def _frame(x: _Scale, y: _Scale, marks, x_name: str, y_name: str, x_labels) -> list[str]:
    bottom, right = y.start, x.stop
    parts = []
    for value in ticks(y.low, y.high):
        at = y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(_text(LEFT - 7, at + 3.5, number(value), "end"))
    for value in marks:
        label = number(value) if x_labels is None else x_labels.get(value, "")
        parts.append(f'<path class="tick" d="M{x(value):.1f} {bottom}v4"/>')
        parts.append(_text(x(value), bottom + 16, _cut(label, 14), "middle"))
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    parts.append(_text((LEFT + right) / 2, bottom + 36, x_name, "middle", "name"))
    middle = (TOP + bottom) / 2
    turned = f'transform="rotate(-90 12 {middle})"'
    parts.append(_text(12, middle, y_name, "middle", "name", turned))
    return parts


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def _text(x, y, text: str, anchor: str, kind: str = "", rest: str = "") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {rest}>'
        f"{escape(text)}</text>"
    )


def _mark(p: Point, x: float | int, y: float | int, before: str) -> str:
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="9"/>' if p.is_marked else ""
    return (
        f'<g class="pt s{p.line % 8}" data-tip="{escape(p.tip)}">{before}{ring}'
        f'<g style="opacity:{0.3 + 0.7 * p.weight:.2f}">{marker(p.line, x, y)}</g>'
        f'<circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="11"/></g>'
    )


def marker(line: int, x: float | int, y: float | int, *, size: float | int = 4.6) -> str:
    """The sign of a line: lines differ in shape as well as in colour."""
    kind, s = MARKERS[line % len(MARKERS)], size
    if kind in ("circle", "ring"):
        style = "hollow" if kind == "ring" else "solid"
        return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{s}"/>'
    shapes = {
        "square": f"M{-s} {-s}H{s}V{s}H{-s}Z",
        "triangle": f"M0 {-1.25 * s}L{1.2 * s} {0.9 * s}H{-1.2 * s}Z",
        "diamond": f"M0 {-1.35 * s}L{1.2 * s} 0L0 {1.35 * s}L{-1.2 * s} 0Z",
        "cross": f"M{-s} {-s}L{s} {s}M{s} {-s}L{-s} {s}",
        "star": f"M0 {-1.3 * s}V{1.3 * s}M{-1.2 * s} {-0.7 * s}L{1.2 * s} {0.7 * s}"
        f"M{1.2 * s} {-0.7 * s}L{-1.2 * s} {0.7 * s}",
        "bar": f"M{-1.2 * s} {-0.5 * s}H{1.2 * s}V{0.5 * s}H{-1.2 * s}Z",
    }
    style = "stroked" if kind in ("cross", "star") else "solid"
    return f'<path class="{style}" transform="translate({x:.1f} {y:.1f})" d="{shapes[kind]}"/>'


def _svg(parts: Sequence[str], title: str, width: int, height: int) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" tabindex="0" '
        f'aria-label="{escape(title)}. Arrow keys read the points.">{"".join(parts)}</svg>'
    )


def legend_mark(line: int) -> str:
    """A line's sign, 18 pixels wide."""
    return (
        f'<svg class="key s{line % 8}" width="18" height="14" aria-hidden="true">'
        f"{marker(line, 9, 7)}</svg>"
    )
