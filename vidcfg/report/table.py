"""Results as arrays: one row a cell, one column a (prompt, seed) that all of them have."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from vidcfg.metrics.record import Record
from vidcfg.progress import listed
from vidcfg.results import Results, UnitResult
from vidcfg.stored.read import ResultsError

DECIDING = {
    "flicker": ("mc_flicker",),
    "alignment": ("clip_score", "align", "attribute_accuracy"),
    "motion": ("dynamic_degree",),
}
"""What decides, and the metrics that can stand for it, the best first."""

SHOWN = (
    *("mc_flicker", "align", "clip_score", "dynamic_degree", "mc_flicker_p95", "judder"),
    *("stride_pulse", "mc_flicker_peak", "judder_peak", "ghosting", "content_drift"),
    *("sharpness_pulse", "mc_coverage"),
    *("clipped_share", "attribute_accuracy", "lpips_warp", "lpips_adjacent", "colour_drift"),
    *("luminance_flicker", "frame_diff", "saturation", "contrast_drift", "fd", "fvd", "kd"),
)
"""The order in which metrics are shown; those not named follow by name."""

LEAST_SHARE = 0.5
"""A cell stays in the comparison while all cells share this part of the pairs."""

LEAST_PROMPTS = 6
"""Fewer prompts than this can never give p = 0.05: a metric that more have decides instead."""

CLIP_FACTS = ("num_frames", "height", "width", "fps", "lossless")

Pair = tuple[str, int | None]


@dataclass(frozen=True, eq=False)
class MetricValues:
    """Values [C, N] of one metric on the compared cells, NaN where a video has none.

    `like` is one of its records: all have the same unit, direction, protocol and backend.
    """

    like: Record
    values_CN: np.ndarray
    is_static_CN: np.ndarray

    @property
    def is_there_N(self) -> Bool[np.ndarray, "N"]:
        return np.isfinite(self.values_CN).all(axis=0)

    @property
    def num_lost_C(self) -> Int[np.ndarray, "C"]:
        """How many clips of each cell have no value although another cell's clip has one."""
        is_there_CN = np.isfinite(self.values_CN)
        return (~is_there_CN & is_there_CN.any(axis=0)).sum(axis=1)


@dataclass(frozen=True, eq=False)
class Table:
    """Metrics over compared cells and shared pairs.

    `left_out` gives the cells that are not compared, `refused` the metrics, each with the reason.
    """

    cells: tuple[str, ...]
    pairs: tuple[Pair, ...]
    metrics: dict[str, MetricValues]
    left_out: dict[str, str]
    refused: dict[str, str]
    num_pairs: int

    def first(self, what: str) -> str | None:
        """The first metric of `DECIDING[what]` that enough clips have to decide by it."""
        needed = min(LEAST_PROMPTS, len({prompt for prompt, _ in self.pairs}))
        for base, name in itertools.product(DECIDING[what], self.metrics):
            is_there_N = self.metrics[name].is_there_N
            has_prompts = len(set(self.prompts(is_there_N))) >= needed
            if base_name(name) == base and is_there_N.mean() >= LEAST_SHARE and has_prompts:
                return name
        return None

    @property
    def key_metrics(self) -> dict[str, str]:
        """What decides: flicker, alignment and motion, as far as they were measured."""
        named = {what: self.first(what) for what in DECIDING}
        return {what: name for what, name in named.items() if name is not None}

    @property
    def key_mask(self) -> Bool[np.ndarray, "N"]:
        """The pairs in which every deciding metric has a value in every cell."""
        masks = [self.metrics[name].is_there_N for name in self.key_metrics.values()]
        return np.all([np.ones(len(self.pairs), bool), *masks], axis=0)

    def mask_of(self, metric: MetricValues) -> Bool[np.ndarray, "N"]:
        """Where all cells have a value; for a deciding metric, where they have all deciding ones.

        So means, tests and front are of the same clips.
        """
        is_key = metric.like.name in self.key_metrics.values() and self.key_mask.any()
        return self.key_mask if is_key else metric.is_there_N

    def prompts(self, mask_N: Bool[np.ndarray, "N"]) -> list[str]:
        """The prompt of every pair of a mask: what clusters the clips."""
        return [prompt for (prompt, _), is_there in zip(self.pairs, mask_N) if is_there]


def pair_of(unit: UnitResult) -> Pair:
    return (unit.prompt if unit.prompt is not None else unit.key, unit.seed)


def make_table(results: Results, *, metrics: Sequence[str] | None = None) -> Table:
    """The comparable part of the results. `metrics` limits it to names, with or without bracket.

    Raises:
        ResultsError: if a name of `metrics` was not measured.
    """
    # The cells and pairs that are compared.
    units = {(unit.cell, pair_of(unit)): unit for unit in results.units}
    owned: dict[str, set[Pair]] = {cell.id: set() for cell in results.cells}
    for cell, pair in units:
        owned[cell].add(pair)
    failed = {(f.cell, (f.prompt, f.seed)): f.kind for f in results.failed}
    cells, left_out = _compared(owned, failed)
    shared = set.intersection(*(owned[cell] for cell in cells)) if cells else set()
    rank = {prompt: index for index, prompt in enumerate(results.prompts)}

    def order(pair: Pair) -> tuple:
        return rank.get(pair[0], len(rank)), pair[0], -1 if pair[1] is None else pair[1]

    pairs = tuple(sorted(shared, key=order))

    # Their values, metric by metric.
    found = {}
    for name in _names(results.units, metrics):
        rows = [[units[cell, pair].records.get(name) for pair in pairs] for cell in cells]
        found[name] = _metric(rows)
    refused = {name: reason for name, reason in found.items() if isinstance(reason, str)}
    made = {name: metric for name, metric in found.items() if name not in refused}
    return Table(cells, pairs, made, left_out, refused, len(set().union(*owned.values())))


def _compared(
    owned: dict[str, set[Pair]], failed: dict[tuple[str, Pair], str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Cells that share enough pairs; the emptiest is left out, with the reason, until they do.

    `failed` gives the kind of failure by cell and pair.
    """
    left_out = {c: _absence(c, owned, failed) for c, pairs in owned.items() if not pairs}
    cells = [cell for cell in owned if cell not in left_out]
    total = len(set().union(*owned.values()))
    while len(cells) > 1:
        shared = set.intersection(*(owned[cell] for cell in cells))
        if len(shared) >= LEAST_SHARE * total:
            break
        emptiest = min(cells, key=lambda cell: len(owned[cell]))
        left_out[emptiest] = _absence(emptiest, owned, failed)
        cells.remove(emptiest)
    return tuple(cells), left_out


def _absence(cell: str, owned: dict[str, set[Pair]], failed: dict[tuple[str, Pair], str]) -> str:
    """Why a cell cannot be paired with the others: other seeds, other prompts, missing videos."""
    own = owned[cell]
    others = set().union(*(pairs for name, pairs in owned.items() if name != cell))
    for part, word in ((1, "seeds"), (0, "prompts")):
        mine, theirs = ({pair[part] for pair in pairs} for pairs in (own, others))
        if mine and theirs and not mine & theirs:
            return f"it has other {word}: {_listed(mine)} here, {_listed(theirs)} elsewhere"
    missing = others - own
    kinds = Counter(kind for (name, _), kind in failed.items() if name == cell)
    why = [f"{count} failed ({kind})" for kind, count in kinds.items()]
    rest = len(missing) - sum(kinds.values())
    why += [f"{rest} are not there"] if rest > 0 else []
    which = _listed(f"'{prompt}'" + ("" if s is None else f" seed {s}") for prompt, s in missing)
    has = f"has {len(own)} of {len(own | others)} videos" if own else "has no video"
    return f"it {has}" + (f", {', '.join(why)}: {which}" if missing else "")


def _listed(values: Iterable) -> str:
    return listed(sorted(values, key=lambda v: (str(type(v)), v)), 4)


def _names(units: Iterable[UnitResult], wanted: Sequence[str] | None) -> list[str]:
    found = {name: {name, base_name(name)} for u in units for name in u.records if name != "read"}
    if wanted is not None:
        if absent := [one for one in wanted if one not in set().union(*found.values())]:
            raise ResultsError(
                f"not measured: {', '.join(absent)}. There are: {', '.join(sorted(found))}."
            )
        found = {name: names for name, names in found.items() if names & set(wanted)}
    return sorted(found, key=shown_order)


def base_name(name: str) -> str:
    """`align` of `align[mini]`."""
    return name.partition("[")[0]


def shown_order(name: str) -> tuple[int, str]:
    base = base_name(name)
    return (SHOWN.index(base) if base in SHOWN else len(SHOWN)), name


def _metric(records_CN: list[list[Record | None]]) -> MetricValues | str:
    """The metric, or the reason why its values cannot be compared."""
    records = [record for cell in records_CN for record in cell if record is not None]
    numbers = [record for record in records if record.value is not None]
    if not numbers:
        reasons = Counter(record.skipped_reason or "no reason given" for record in records)
        return reasons.most_common(1)[0][0] if reasons else "no shared video has it"
    pairs = [[[r] for r in pair if r and r.value is not None] for pair in zip(*records_CN)]
    if unlike := differing(pairs):
        return unlike
    values = [[np.nan if r is None or r.value is None else r.value for r in c] for c in records_CN]
    static = [[r is not None and r.status == "static" for r in cell] for cell in records_CN]
    metric = MetricValues(numbers[0], np.array(values, dtype=np.float64), np.array(static))
    if not metric.is_there_N.any():
        return "no pair of prompt and seed has a value in every cell"
    return metric


def differing(compared: Iterable[Sequence[Sequence[Record]]]) -> str:
    """In what measurements that are compared differ apart from their values; empty if in nothing.

    Each of `compared` holds the records of every side: one a cell for a pair, all of them for
    sets without pairs.
    """
    found = defaultdict(set)
    for sides in compared:
        # Most are of one kind in all they have, which is soon seen.
        if len({(r.protocol, r.backend, r.clip) for side in sides for r in side}) == 1:
            continue
        for what in ("protocol", "backend", *CLIP_FACTS):
            values = [{_fact(record, what) for record in side} for side in sides]
            if any(side != values[0] for side in values):
                found[what].update(*values)
    phrases = [f"{what} is " + " or ".join(sorted(map(str, v))) for what, v in found.items()]
    return f"measured in unlike ways: {'; '.join(phrases)}" if phrases else ""


def _fact(record: Record, what: str) -> Any:
    if what == "backend":
        return tuple(getattr(record.backend, part, None) for part in ("name", "sha256"))
    return record.protocol if what == "protocol" else getattr(record.clip, what, None)
