"""The statistics of the page: means with intervals, paired tests, Pareto front.

Everything is paired by (prompt, seed) and clustered by prompt: clips of one prompt count as one.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from vidcfg.metrics.paired import (
    benjamini_hochberg,
    bootstrap_indices,
    cluster_bootstrap,
    cluster_means,
    holm,
    log_ratios,
    needed_clips,
    sign_flip_p,
)
from vidcfg.report.values import Metric, Table

LEVEL = 0.05
EXACT_PROMPTS = 13
RANDOM_FLIPS = 9_999
FLOORS = {
    "intensity": 1 / 1020,
    "intensity^2": (1 / 1020) ** 2,
    "px": 0.02,
    "lpips": 1e-3,
}
"""Units whose changes are read as ratios, with the size below which a change is rounding."""


@dataclass(frozen=True)
class Estimate:
    """Mean of prompt means with its 95 % cluster bootstrap interval (None for one prompt)."""

    mean: float
    low: float | None
    high: float | None
    clips: int
    prompts: int
    static: int = 0


@dataclass(frozen=True)
class Change:
    """From cell `base` to cell `cell` in one metric.

    `change` is relative (0.05 = 5 % more) if `is_ratio`, else a difference in the metric's unit.
    `p` is of this comparison alone, by sign flips of prompts. `p_fdr` is adjusted for all
    comparisons in its metric by Benjamini & Hochberg: of the changes called clear, 5 % are
    expected to be wrong. `p_holm` and `p_family` (joint sign flips) are adjusted for all
    comparisons in all deciding metrics: the chance of any error is 5 %. `needed` is the number
    of clips that would show a difference of the size found (None: more than a million, or
    unknown).
    """

    what: str
    metric: str
    base: str
    cell: str
    change: float
    low: float | None
    high: float | None
    is_ratio: bool
    p: float
    p_fdr: float
    p_holm: float
    p_family: float
    needed: int | None
    clips: int

    @property
    def is_clear(self) -> bool:
        return self.p_fdr <= LEVEL


def estimates(metric: Metric, table: Table) -> dict[str, Estimate]:
    """For each cell, over the pairs that `shared_mask` gives."""
    is_there = shared_mask(metric, table)
    clusters = [pair[0] for pair, there in zip(table.pairs, is_there) if there]
    made = {}
    for cell, values, static in zip(table.cells, metric.values_CN, metric.is_static_CN):
        found = values[is_there]
        interval = cluster_bootstrap(found, clusters)
        means = cluster_means(found, clusters)
        made[cell] = Estimate(
            float(means.mean()),
            *_finite(interval),
            clips=len(found),
            prompts=len(means),
            static=int(static[is_there].sum()),
        )
    return made


def _finite(interval) -> tuple[float | None, float | None]:
    ends = (interval.low, interval.high)
    return ends if all(map(math.isfinite, ends)) else (None, None)


def reads_as_ratio(metric: Metric) -> bool:
    return metric.unit in FLOORS and not (metric.values_CN < 0).any()


def differences(metric: Metric, new: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Per pair: log ratios where the unit has a true zero, else plain differences."""
    if reads_as_ratio(metric):
        return log_ratios(new, base, floor=FLOORS[metric.unit])
    return new - base


def key_mask(table: Table) -> Bool[np.ndarray, "N"]:
    """The pairs in which every deciding metric has a value in every cell."""
    mask = np.ones(len(table.pairs), bool)
    for name in table.key_metrics.values():
        mask &= np.isfinite(table.metrics[name].values_CN).all(axis=0)
    return mask


def shared_mask(metric: Metric, table: Table) -> Bool[np.ndarray, "N"]:
    """Where all cells have a value; for a deciding metric, where they have all deciding ones.

    So means, tests and front are of the same clips.
    """
    if metric.name in table.key_metrics.values() and key_mask(table).any():
        return key_mask(table)
    return np.isfinite(metric.values_CN).all(axis=0)


def changes(table: Table, comparisons: Sequence[tuple[str, str]]) -> list[Change]:
    """All comparisons (base cell, cell) in all deciding metrics."""
    mask = key_mask(table)
    clusters = [pair[0] for pair, there in zip(table.pairs, mask) if there]
    if not clusters or not comparisons:
        return []
    tasks = list(itertools.product(table.key_metrics.items(), comparisons))
    rows = []
    for (_, name), (base, cell) in tasks:
        metric = table.metrics[name]
        values = metric.values_CN[:, mask]
        pick = table.cells.index
        rows.append(differences(metric, values[pick(cell)], values[pick(base)]))
    family = joint_sign_flip(np.stack([cluster_means(row, clusters) for row in rows]))
    alone = [sign_flip_p(row, clusters, alternative="two-sided") for row in rows]
    # Tasks run through all comparisons of one metric, then of the next.
    by_metric = np.array(alone).reshape(-1, len(comparisons))
    found = np.concatenate([benjamini_hochberg(p) for p in by_metric])
    return [
        _change(table, task, row, clusters, p_values)
        for task, row, *p_values in zip(tasks, rows, alone, found, holm(alone), family)
    ]


def _change(table: Table, task, row: np.ndarray, clusters, p_values) -> Change:
    (what, name), (base, cell) = task
    is_ratio = reads_as_ratio(table.metrics[name])
    read = math.expm1 if is_ratio else float
    low, high = _finite(cluster_bootstrap(row, clusters))
    mean = float(cluster_means(row, clusters).mean())
    return Change(
        what,
        name,
        base,
        cell,
        change=read(mean),
        low=None if low is None else read(low),
        high=None if high is None else read(high),
        is_ratio=is_ratio,
        **dict(zip(("p", "p_fdr", "p_holm", "p_family"), map(float, p_values))),
        needed=needed_clips(row, clusters, effect=abs(mean)),
        clips=len(row),
    )


def joint_sign_flip(means_MG: Float[np.ndarray, "M G"]) -> Float[np.ndarray, "M"]:
    """Two-sided p-values of M comparisons on the same G prompts, adjusted for all of them.

        p_m = share of sign patterns s with  max_j |sum_g s_g z_jg| >= |sum_g z_mg|,
        z_m = means_m / ||means_m||

    All comparisons are flipped alike, so that what they share is used: with few prompts Holm
    cannot reach 5 % (its least p is M 2 / 2^G), this can (2 / 2^G). Exact up to 13 prompts, else
    over random patterns with the observed one counted in.

    Source: Westfall & Young 1993, single-step maxT.
    """
    size = np.linalg.norm(means_MG, axis=1, keepdims=True)
    z = np.divide(means_MG, size, out=np.zeros_like(means_MG), where=size > 0)
    # A sum that is equal in theory differs by rounding.
    observed = np.abs(z.sum(axis=1)) - 1e-9
    highest = np.concatenate([np.abs(z @ s.T).max(axis=0) for s in _patterns(z.shape[1])])
    highest.sort()
    at_least = len(highest) - np.searchsorted(highest, observed, side="left")
    return np.where(size[:, 0] > 0, at_least / len(highest), 1.0)


def _patterns(num: int):
    """Sign patterns [S, G] in blocks; of a pattern and its negative only one."""
    if num <= EXACT_PROMPTS:
        numbers = np.arange(2 ** (num - 1))
        yield 1.0 - 2.0 * (numbers[:, None] >> np.arange(num) & 1)
        return
    random = np.random.default_rng(0)
    yield np.ones((1, num))
    for start in range(0, RANDOM_FLIPS, 500):
        shape = min(500, RANDOM_FLIPS - start), num
        yield 1.0 - 2.0 * random.integers(0, 2, shape)


def least_p(num_prompts: int) -> float:
    """The smallest p-value that joint sign flips over so many prompts can give."""
    if num_prompts <= EXACT_PROMPTS:
        return 0.5 ** (num_prompts - 1)
    return 1 / (RANDOM_FLIPS + 1)


def pareto_front(costs_CM: Float[np.ndarray, "C M"]) -> Bool[np.ndarray, "C"]:
    """Rows that no other row beats: nowhere larger and somewhere smaller."""
    return ~_is_beaten(costs_CM[None])[0]


def _is_beaten(costs_RCM: np.ndarray) -> np.ndarray:
    one, other = costs_RCM[:, :, None], costs_RCM[:, None]
    beats = (other <= one).all(-1) & (other < one).any(-1)
    return beats.any(-1)


@dataclass(frozen=True, eq=False)
class Front:
    """Flicker (lower is better) against alignment (higher) of every compared cell.

    `membership_C` is the share of prompt resamples, the same for all cells, in which the cell is
    on the front.
    """

    flicker: str
    alignment: str
    x_C: np.ndarray
    y_C: np.ndarray
    on_front_C: np.ndarray
    membership_C: np.ndarray


def front_of(table: Table, *, resamples: int = 2000) -> Front | None:
    """None without both metrics on a shared clip."""
    names = [table.key_metrics.get(what) for what in ("flicker", "alignment")]
    mask = key_mask(table)
    if None in names or not mask.any():
        return None
    clusters = [pair[0] for pair, there in zip(table.pairs, mask) if there]
    means_MCG = np.stack(
        [
            [cluster_means(values[mask], clusters) for values in table.metrics[name].values_CN]
            for name in names
        ]
    )
    means_MCG[1] *= -1
    centre = means_MCG.mean(axis=2)
    drawn_RG = bootstrap_indices(clusters, resamples=resamples)
    beaten = []
    for block in np.array_split(drawn_RG, max(1, resamples * len(table.cells) ** 2 // 2_000_000)):
        beaten.append(_is_beaten(means_MCG[:, :, block].mean(-1).transpose(2, 1, 0)))
    membership = 1 - np.concatenate(beaten).mean(axis=0)
    return Front(*names, centre[0], -centre[1], pareto_front(centre.T), membership)
