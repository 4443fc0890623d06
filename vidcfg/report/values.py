"""Results as arrays: one row a cell, one column a (prompt, seed) that all of them have."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidcfg.report.results import Results, ResultsError, UnitResult

FLICKER = ("warp_residual", "frame_diff")
ALIGNMENT = ("clip_score", "align", "attribute_accuracy")
MOTION = ("dynamic_degree",)
SHOWN = (
    *("warp_residual", "align", "clip_score", "dynamic_degree", "frame_diff", "stride_pulse"),
    *("clipped_share", "attribute_accuracy", "lpips_warp", "lpips_adjacent", "colour_drift"),
    *("luminance_flicker", "saturation", "contrast_drift", "fd", "fvd", "kd"),
)
"""The order in which metrics are shown; those not named follow by name."""

LEAST_SHARE = 0.5
"""A cell stays in the comparison while all cells share this part of the pairs."""

LEAST_PROMPTS = 6
"""Fewer prompts than this can never give p = 0.05: a metric that more have decides instead."""

Pair = tuple[str, int | None]


@dataclass(frozen=True, eq=False)
class Metric:
    """Values [C, N] of one metric on the compared cells, NaN where a video has none."""

    name: str
    values_CN: np.ndarray
    unit: str
    better: str
    protocol: str
    backend: dict | None
    is_static_CN: np.ndarray


@dataclass(frozen=True, eq=False)
class Table:
    """Metrics over compared cells and shared pairs.

    `left_out` gives the cells that are not compared, `refused` the metrics, each with the reason.
    """

    cells: tuple[str, ...]
    pairs: tuple[Pair, ...]
    metrics: dict[str, Metric]
    left_out: dict[str, str]
    refused: dict[str, str]
    num_pairs: int

    def first(self, bases: Sequence[str]) -> str | None:
        """The first by its name before the bracket that enough clips have to decide by it."""
        for base in bases:
            for name, metric in self.metrics.items():
                if name.partition("[")[0] == base and self._decides(metric):
                    return name
        return None

    def _decides(self, metric: Metric) -> bool:
        is_there = np.isfinite(metric.values_CN).all(axis=0)
        prompts = {pair[0] for pair, there in zip(self.pairs, is_there) if there}
        needed = min(LEAST_PROMPTS, len({pair[0] for pair in self.pairs}))
        return bool(is_there.mean() >= LEAST_SHARE) and len(prompts) >= needed

    @property
    def key_metrics(self) -> dict[str, str]:
        """What decides: flicker, alignment and motion, as far as they were measured."""
        found = {"flicker": FLICKER, "alignment": ALIGNMENT, "motion": MOTION}
        named = {what: self.first(bases) for what, bases in found.items()}
        return {what: name for what, name in named.items() if name is not None}


def pair_of(unit: UnitResult) -> Pair:
    return (unit.prompt if unit.prompt is not None else unit.key, unit.seed)


def make_table(results: Results, *, metrics: Sequence[str] | None = None) -> Table:
    """The comparable part of the results. `metrics` limits it to names, with or without bracket.

    Raises:
        ResultsError: if a name of `metrics` was not measured.
    """
    units = {(unit.cell, pair_of(unit)): unit for unit in results.units}
    owned: dict[str, set[Pair]] = {cell.id: set() for cell in results.cells}
    for cell, pair in units:
        owned[cell].add(pair)
    cells, left_out = _compared(owned)
    shared = set.intersection(*(owned[cell] for cell in cells)) if cells else set()
    everything = set().union(*owned.values())
    pairs = tuple(sorted(shared, key=lambda pair: _order(pair, results.prompts)))
    made, refused = {}, {}
    for name in _names(results.units, metrics):
        rows = [[units[cell, pair].rows.get(name) for pair in pairs] for cell in cells]
        metric = _metric(name, rows)
        if isinstance(metric, str):
            refused[name] = metric
        else:
            made[name] = metric
    return Table(cells, pairs, made, left_out, refused, len(everything))


def _order(pair: Pair, prompts: Sequence[str]) -> tuple:
    place = prompts.index(pair[0]) if pair[0] in prompts else len(prompts)
    return place, pair[0], -1 if pair[1] is None else pair[1]


def _compared(owned: dict[str, set[Pair]]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Cells that share enough pairs; the emptiest is left out until they do."""
    left_out = {cell: "it has no video" for cell, pairs in owned.items() if not pairs}
    cells = [cell for cell in owned if cell not in left_out]
    total = len(set().union(*owned.values())) if owned else 0
    while len(cells) > 1:
        shared = set.intersection(*(owned[cell] for cell in cells))
        if len(shared) >= LEAST_SHARE * total:
            break
        emptiest = min(cells, key=lambda cell: len(owned[cell]))
        left_out[emptiest] = f"it has {len(owned[emptiest])} of {total} videos"
        cells.remove(emptiest)
    return tuple(cells), left_out


def _names(units: Sequence[UnitResult], wanted: Sequence[str] | None) -> list[str]:
    found = dict.fromkeys(name for unit in units for name in unit.rows if name != "read")
    if wanted is not None:
        absent = [w for w in wanted if not any(_is_named(name, w) for name in found)]
        if absent:
            raise ResultsError(
                f"not measured: {', '.join(absent)}. There are: {', '.join(sorted(found))}."
            )
        found = [name for name in found if any(_is_named(name, w) for w in wanted)]
    return sorted(found, key=shown_order)


def _is_named(name: str, wanted: str) -> bool:
    return wanted in (name, name.partition("[")[0])


def shown_order(name: str) -> tuple[int, str]:
    base = name.partition("[")[0]
    return (SHOWN.index(base) if base in SHOWN else len(SHOWN)), name


def _metric(name: str, rows_CN: list[list]) -> Metric | str:
    """The metric, or the reason why its values cannot be compared."""
    rows = [row for cell in rows_CN for row in cell if row is not None]
    numbers = [row for row in rows if row["value"] is not None]
    if not numbers:
        reasons = Counter(row.get("skipped_reason") or "no reason given" for row in rows)
        return reasons.most_common(1)[0][0] if reasons else "no shared video has it"
    differing = unlike_rows(numbers)
    if differing:
        return "measured in unlike ways: " + "; ".join(differing)
    values = np.array(
        [
            [np.nan if r is None or r["value"] is None else r["value"] for r in cell]
            for cell in rows_CN
        ],
        dtype=np.float64,
    )
    if not np.isfinite(values).all(axis=0).any():
        return "no pair of prompt and seed has a value in every cell"
    static = [[r is not None and r.get("status") == "static" for r in cell] for cell in rows_CN]
    row = numbers[0]
    return Metric(
        name,
        values,
        unit=row.get("unit") or "",
        better=row.get("better") or "none",
        protocol=row.get("protocol") or "",
        backend=row.get("backend"),
        is_static_CN=np.array(static),
    )


def unlike_rows(rows: Sequence) -> list[str]:
    """In what the measurements differ apart from their values, one phrase each."""
    found = []
    for what in ("protocol", "backend", "num_frames", "height", "width", "fps", "lossless"):
        values = {_fact(row, what) for row in rows}
        if len(values) > 1:
            found.append(f"{what} is " + " or ".join(sorted(map(str, values))))
    return found


def _fact(row, what: str):
    if what == "protocol":
        return row.get("protocol")
    if what == "backend":
        backend = row.get("backend") or {}
        return backend.get("name"), backend.get("sha256")
    return (row.get("clip") or {}).get(what)
