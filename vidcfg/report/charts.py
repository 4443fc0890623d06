"""Charts as SVG: where points, lines and ticks stand; `templates/chart.svg` draws them.

Points carry `data-tip`, which the page shows on hover, touch and arrow keys.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vidcfg.report.formats import fill, number

SIZE, WIDE_SIZE = (420, 270), (820, 430)
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 44
LETTER = 6.2
"""Width of a letter of a label, in pixels."""

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


def _labelled(values: Sequence[Number]) -> list[tuple[Number, str]]:
    """Values, each with as few digits, 4 or more, as keep unlike ones apart."""
    for digits in range(4, 17):
        labels = [number(value, digits) for value in values]
        if len(set(labels)) == len(set(values)):
            break
    return list(zip(values, labels))


def _apart(labels: Sequence[tuple[Number, str]], scale: Scale) -> list[tuple[Number, str]]:
    """The labels, in the order of their places, of which none touches one before it."""
    kept, free = [], -math.inf
    for value, text in sorted(labels):
        half = len(text) * LETTER / 2
        if scale(value) - half >= free:
            kept.append((value, text))
            free = scale(value) + half + 8
    return kept


def curve_chart(
    points: Sequence[Point],
    *,
    x_labels: Mapping[Number, str] | None = None,
    zero: bool = False,
    **names: str,
) -> str:
    """Points over x, those of a line joined in the order of x (not where x only counts cells).

    `x_labels` replaces numbers by names or, where these would touch or repeat when cut, by
    their place in the list; `zero` draws a line at 0. `names` are `title`, `x_name` and `y_name`.
    """
    x, y = _scales(points, SIZE, [0.0] if zero else [])
    values = sorted({p.x for p in points})
    marks = values if len(values) <= 9 else ticks(x.low, x.high, count=7)
    if x_labels is None:
        labels = _labelled(marks)
    else:
        short = {v: t if len(t) <= 14 else t[:13] + "…" for v, t in x_labels.items()}
        named = [(v, short[v]) for v in values]
        fits = len(dict(named)) == len(set(dict(named).values())) == len(_apart(named, x))
        labels = named if fits else [(v, str(list(x_labels).index(v) + 1)) for v in values]
        names |= {} if fits else {"x_name": f"{names['x_name']}, by its place in the table"}
    # Lines stand beside each other, so that their bars do.
    lines = sorted({p.line for p in points})
    shifts = {line: (index - (len(lines) - 1) / 2) * 5 for index, line in enumerate(lines)}
    ordered = sorted(points, key=lambda p: (p.line, p.x))
    places = [(p, x(p.x) + shifts[p.line], y(p.y)) for p in ordered]
    joins = {} if x_labels else {k: path for k, path in _joins(places).items() if len(path) > 1}
    return _drawn(SIZE, x, y, labels, places, joins, names, has_zero=zero)


def scatter_chart(points: Sequence[Point], front: Sequence[int], **names: str) -> str:
    """Points with crosses for both intervals; those of a line are joined in their order.

    `front` are the indices that a step line joins; `names` as for `curve_chart`.
    """
    x, y = _scales(points, WIDE_SIZE)
    labels = _labelled(ticks(x.low, x.high, count=8))
    places = _labels_apart([(p, x(p.x), y(p.y)) for p in points])
    steps = [(x(a), y(b)) for a, b in sorted((points[i].x, points[i].y) for i in front)]
    return _drawn(WIDE_SIZE, x, y, labels, places, _joins(places), names, steps=steps)


def _labels_apart(places: list[tuple[Point, float, float]]) -> list[tuple[Point, float, float]]:
    """The places; a point whose label would lie on another point's has none (its tip tells)."""
    kept, made = [], []
    for p, a, b in places:
        width = len(p.label) * LETTER
        if any(a < right and left < a + width and abs(b - low) < 12 for left, right, low in kept):
            p = replace(p, label="")
        elif p.label:
            kept.append((a, a + width, b))
        made.append((p, a, b))
    return made


def _scales(points: Sequence[Point], size: tuple[int, int], more: Sequence[Number] = ()):
    across = [value for p in points for value in (p.x, p.x_low, p.x_high)]
    down = [value for p in points for value in (p.y, p.low, p.high)]
    return Scale(across, LEFT, size[0] - RIGHT), Scale([*down, *more], size[1] - BOTTOM, TOP)


def _joins(places: Sequence[tuple[Point, float, float]]) -> dict[int, list[tuple[float, float]]]:
    """Each line with the places of its points."""
    lines = sorted({p.line for p, _, _ in places})
    return {line: [(a, b) for p, a, b in places if p.line == line] for line in lines}


def _drawn(size, x, y, labels, places, joins, names, *, has_zero=False, steps=()) -> str:
    return fill(
        "chart.svg",
        size=size,
        x=x,
        y=y,
        x_ticks=_apart(labels, x),
        y_ticks=_labelled(ticks(y.low, y.high)),
        places=places,
        joins=joins,
        steps=steps,
        has_zero=has_zero,
        is_wide=size == WIDE_SIZE,
        **names,
    )
