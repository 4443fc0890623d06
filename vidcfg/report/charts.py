"""Charts as SVG: where points, lines and ticks stand; `templates/chart.svg` draws them.

Points carry `data-tip`, which the page shows on hover, touch and arrow keys.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vidcfg.report.formats import fill, number

SIZE, WIDE_SIZE = (420, 270), (820, 430)
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 44

Number = float | int


@dataclass(frozen=True)
class Point:
    """`line` is the number of its line; `low` and `high` are None without an interval.

    `weight` from 0 to 1 is how solid the mark is, `label` stands beside it.
    """

    x: Number
    y: Number
    line: int
    tip: str
    low: Number | None = None
    high: Number | None = None
    x_low: Number | None = None
    x_high: Number | None = None
    weight: Number = 1.0
    label: str = ""
    is_marked: bool = False


class Scale:
    """From values, with a margin around them, to pixels from `start` to `stop`."""

    def __init__(self, values: Iterable[Number | None], start: Number, stop: Number):
        given = [value for value in values if value is not None]
        low, high = min(given), max(given)
        margin = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
        self.low, self.high, self.start, self.stop = low - margin, high + margin, start, stop

    def __call__(self, value: Number) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def ticks(low: Number, high: Number, *, count: int = 5) -> list[float]:
    """Round numbers from at or above `low` to at or below `high`."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10 ** math.floor(math.log10(span / count))
    step *= next((m for m in (1, 2, 2.5, 5) if span / (step * m) <= count), 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(round(i * step, 12)) for i in range(first, last + 1)]


def curve_chart(
    points: Sequence[Point],
    *,
    x_labels: Mapping[Number, str] | None = None,
    zero: bool = False,
    **names: str,
) -> str:
    """Points over x, those of a line joined in the order of x (not where x only counts cells).

    `x_labels` replaces numbers by names; `zero` draws a line at 0. `names` are `title`, `x_name`
    and `y_name`.
    """
    x, y = _scales(points, SIZE, [0.0] if zero else [])
    values = sorted({p.x for p in points})
    marks = values if len(values) <= 9 else ticks(x.low, x.high, count=7)
    labels = [(v, number(v) if x_labels is None else x_labels.get(v, "")) for v in marks]
    # Lines stand beside each other, so that their bars do.
    lines = sorted({p.line for p in points})
    shifts = {line: (index - (len(lines) - 1) / 2) * 5 for index, line in enumerate(lines)}
    ordered = sorted(points, key=lambda p: (p.line, p.x))
    places = [(p, x(p.x) + shifts[p.line], y(p.y)) for p in ordered]
    joins = {line: path for line, path in _joins(places) if x_labels is None and len(path) > 1}
    return _drawn(SIZE, x, y, labels, places, joins, names, has_zero=zero)


def scatter_chart(points: Sequence[Point], front: Sequence[int], **names: str) -> str:
    """Points with crosses for both intervals; those of a line are joined in their order.

    `front` are the indices that a step line joins; `names` as for `curve_chart`.
    """
    x, y = _scales(points, WIDE_SIZE)
    labels = [(value, number(value)) for value in ticks(x.low, x.high, count=8)]
    places = [(p, x(p.x), y(p.y)) for p in points]
    steps = sorted((points[index].x, points[index].y) for index in front)
    steps = [(x(a), y(b)) for a, b in steps]
    return _drawn(WIDE_SIZE, x, y, labels, places, dict(_joins(places)), names, steps=steps)


def _scales(points: Sequence[Point], size: tuple[int, int], more: Sequence[Number] = ()):
    across = [value for p in points for value in (p.x, p.x_low, p.x_high)]
    down = [value for p in points for value in (p.y, p.low, p.high)]
    return Scale(across, LEFT, size[0] - RIGHT), Scale([*down, *more], size[1] - BOTTOM, TOP)


def _joins(places: Sequence[tuple[Point, float, float]]) -> Iterator[tuple[int, list]]:
    """Each line with the places of its points."""
    for line in sorted({p.line for p, _, _ in places}):
        yield line, [(a, b) for p, a, b in places if p.line == line]


def _drawn(size, x, y, labels, places, joins, names, *, has_zero=False, steps=()) -> str:
    return fill(
        "chart.svg",
        size=size,
        x=x,
        y=y,
        x_ticks=[(v, text if len(text) <= 14 else text[:13] + "…") for v, text in labels],
        y_ticks=ticks(y.low, y.high),
        places=places,
        joins=joins,
        steps=steps,
        has_zero=has_zero,
        is_wide=size == WIDE_SIZE,
        **names,
    )
