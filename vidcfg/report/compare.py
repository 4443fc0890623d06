"""The statistics of the page: means with intervals, paired tests, Pareto front.

Everything is paired by (prompt, seed) and clustered by prompt: clips of one prompt count as one.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from vidcfg.metrics import paired
from vidcfg.metrics.record import mean_interval, range_of
from vidcfg.report.table import MetricValues, Table

LEVEL = 0.05
CLEAR = LEVEL * (1 + 1e-12)
"""p-values are multiples of 2^-G: those that are the level itself may differ by rounding."""
EXACT_PROMPTS = 13
RANDOM_FLIPS = 9_999
MOST_PAIRS = 20_000
"""Above so many pairs of cells (200 cells), each cell is compared with the best ones alone; the
other pairs count in the adjustment, for the best were chosen by the same data."""
MOTION_LOSS = 0.25
"""A cell that surely loses this share of the baseline's motion cannot win in flicker."""

FLOORS = {
    "intensity": 1 / 1020,
    "intensity^2": (1 / 1020) ** 2,
    "px": 0.02,
    "lpips": 1e-3,
}
"""Units whose changes are read as ratios, with the size below which a change is rounding."""


@dataclass(frozen=True)
class MeanOfCell:
    """Mean of prompt means with its 95 % interval (None for one prompt).

    `clips` have a value in every cell, `lost` is how many of this cell's have none although
    another cell's has one.
    """

    mean: float
    low: float | None
    high: float | None
    clips: int
    prompts: int
    static: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Change:
    """From cell `base` to cell `cell` in one metric.

    `change` is relative (0.05 = 5 % more) if `is_ratio`, else a difference in the metric's unit,
    over the `clips` that have a value in both. `lost` counts those that only one of the two has:
    of `base`, of `cell`. In the tests such a clip is the largest difference there is, against the
    one that lost it.
    `p` is of this comparison alone, by sign flips of prompts. `p_fdr` is adjusted for all
    comparisons in its metric, those of cells for all pairs of them, by Benjamini & Hochberg: of
    the changes called clear, 5 % are expected to be wrong. `p_holm` and `p_family` (joint sign
    flips) are adjusted for all comparisons in all deciding metrics: the chance of any error is
    5 %. `needed` is the number of clips that would call a difference of the size found clear with
    a chance of 80 %, were the same other comparisons clear (None: more than a million, or
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
    lost: tuple[int, int]

    @property
    def is_clear(self) -> bool:
        """Whether it is told apart; never where one of the two lost more clips than the other."""
        return self.lost[0] == self.lost[1] and self.p_fdr <= CLEAR


def estimates(metric: MetricValues, table: Table) -> dict[str, MeanOfCell]:
    """For each cell, over the pairs that `Table.mask_of` gives."""
    mask = table.mask_of(metric)
    clusters = table.prompts(mask)
    made = {}
    rows = zip(table.cells, metric.values_CN, metric.is_static_CN, metric.num_lost_C)
    for cell, values, static, lost in rows:
        means = paired.cluster_means(values[mask], clusters)
        counts = len(clusters), len(means), int(static[mask].sum()), int(lost)
        ends = interval_of(means, metric.like.unit)
        made[cell] = MeanOfCell(float(means.mean()), *ends, *counts)
    return made


def interval_of(
    means_G: Float[np.ndarray, "G"], unit: str
) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of the mean that prompts like these have; (None, None) for one prompt.

    Student's over prompts. In a unit that reads as ratios, where few prompts stand far above the
    others, it is joined with Cox's interval for lognormal values,
    log mean = m + s^2 / 2 +- t sqrt(s^2 / G + s^4 / (2 (G - 1))). Ends stay in the unit's range.

    Source: Olsson 2005, Confidence intervals for the mean of a log-normal distribution.
    """
    from scipy.special import stdtrit

    ends, floor, num = mean_interval(means_G.tolist()), FLOORS.get(unit), len(means_G)
    if ends is None:
        return None, None
    low, high = ends
    if floor is not None and (means_G >= 0).all():
        logs = np.log(means_G + floor)
        variance = float(logs.var(ddof=1))
        spread = math.sqrt(variance / num + variance**2 / (2 * (num - 1)))
        # No float is larger than e^700.
        reach = np.minimum(float(stdtrit(num - 1, 0.975)) * spread * np.array([-1, 1]), 300)
        cox = np.exp(np.minimum(logs.mean() + variance / 2 + reach, 700)) - floor
        low, high = min(low, float(cox[0])), max(high, float(cox[1]))
    least, most = range_of(unit, means_G)
    return max(low, least), min(high, most)


def _floor_of(metric: MetricValues) -> float | None:
    """The floor of log ratios, where the unit has a true zero; None where differences count."""
    return None if (metric.values_CN < 0).any() else FLOORS.get(metric.like.unit)


def changes(
    table: Table, comparisons: Sequence[tuple[str, str]], *, num_untested: int = 0
) -> list[Change]:
    """All comparisons (base cell, cell) in all deciding metrics.

    Those that the data chose come with the number of those left out, which count as p = 1.
    """
    from scipy.stats import false_discovery_control

    # Differences of every comparison, pair by pair; of clips that both lost there is none.
    clusters = [prompt for prompt, _ in table.pairs]
    tasks = list(itertools.product(table.key_metrics.items(), comparisons))
    if not table.key_mask.any() or not tasks:
        return []
    rows = [_differences(table.metrics[name], table, pair) for (_, name), pair in tasks]

    # p-values: of each alone, of all in its metric, of all there are.
    family = joint_sign_flip(np.stack([paired.cluster_means(row, clusters) for row in rows]))
    alone = [paired.sign_flip_p(row, clusters, alternative="two-sided") for row in rows]
    by_metric = np.array(alone).reshape(-1, len(comparisons))  # as `tasks` runs through them
    every = np.pad(by_metric, ((0, 0), (0, num_untested)), constant_values=1.0)
    found = false_discovery_control(every, axis=1)[:, : len(comparisons)]
    # The level that one more clear comparison of its metric has to reach (a p counts two tails).
    is_clear = found <= CLEAR
    alphas = LEVEL * (is_clear.sum(axis=1, keepdims=True) + ~is_clear) / every.shape[1] / 2
    columns = alphas.ravel(), alone, found.ravel(), paired.holm(alone), family
    return [
        _change(table, task, row, clusters, alpha, p_values)
        for task, row, alpha, *p_values in zip(tasks, rows, *columns)
    ]


def _differences(metric: MetricValues, table: Table, pair: tuple[str, str]) -> np.ndarray:
    """[N] from the first cell to the second: log ratios or differences, 0 where both lost it."""
    base, new = (metric.values_CN[table.cells.index(cell)] for cell in pair)
    has_base, has_new = np.isfinite(base), np.isfinite(new)
    both = has_base & has_new
    row = np.zeros(len(both))
    if (floor := _floor_of(metric)) is None:
        row[both] = (new - base)[both]
    else:
        row[both] = paired.log_ratios(new[both], base[both], floor=floor)
    # A clip that one has lost is as bad for it as the largest difference found.
    worst = np.abs(row).max() or 1.0
    worst *= -1 if metric.like.better == "higher" else 1
    row[has_base & ~has_new] = worst
    row[has_new & ~has_base] = -worst
    return row


def _change(table: Table, task, row: np.ndarray, clusters, alpha, p_values) -> Change:
    (what, name), pair = task
    metric = table.metrics[name]
    is_ratio = _floor_of(metric) is not None
    base, new = (np.isfinite(metric.values_CN[table.cells.index(cell)]) for cell in pair)
    both = base & new
    lost = int((new & ~base).sum()), int((base & ~new).sum())

    # How large it is, where both have a value, and what would tell.
    means = paired.cluster_means(row[both], table.prompts(both))
    ends = (float(means.mean()), *interval_of(means, ""))
    read = [x if x is None or not is_ratio else math.expm1(x) for x in ends]
    effect = abs(float(paired.cluster_means(row, clusters).mean()))
    needed = paired.needed_clips(row, clusters, effect=effect, alpha=float(alpha))
    counts = needed, int(both.sum()), lost
    return Change(what, name, *pair, *read, is_ratio, *map(float, p_values), *counts)


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
        for numbers in np.array_split(np.arange(2 ** (num - 1)), 2**num // 1024 + 1):
            yield 1.0 - 2.0 * (numbers[:, None] >> np.arange(num) & 1)
        return
    random = np.random.default_rng(0)
    yield np.ones((1, num))
    for start in range(0, RANDOM_FLIPS, 500):
        yield 1.0 - 2.0 * random.integers(0, 2, (min(500, RANDOM_FLIPS - start), num))


def least_p(num_prompts: int) -> float:
    """The smallest p-value that joint sign flips over so many prompts can give."""
    return 0.5 ** (num_prompts - 1) if num_prompts <= EXACT_PROMPTS else 1 / (RANDOM_FLIPS + 1)


def is_beaten(costs_RCM: Float[np.ndarray, "R C M"]) -> Bool[np.ndarray, "R C"]:
    """Rows C that another row beats: nowhere larger and somewhere smaller, in each of R draws."""
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
    mask = table.key_mask
    if None in names or not mask.any():
        return None
    clusters = table.prompts(mask)
    values = [table.metrics[name].values_CN[:, mask] for name in names]
    means = [[paired.cluster_means(row, clusters) for row in rows_CN] for rows_CN in values]
    costs_MCG = np.array(means)
    costs_MCG[1] *= -1
    centre_MC = costs_MCG.mean(axis=2)
    # Blocks bound the memory that the comparison of all cells with all takes.
    drawn_RG = paired.bootstrap_indices(clusters, resamples=resamples)
    blocks = np.array_split(drawn_RG, max(1, resamples * len(table.cells) ** 2 // 2_000_000))
    beaten = [is_beaten(costs_MCG[:, :, block].mean(-1).transpose(2, 1, 0)) for block in blocks]
    membership = 1 - np.concatenate(beaten).mean(axis=0)
    on_front = ~is_beaten(centre_MC.T[None])[0]
    return Front(*names, centre_MC[0], -centre_MC[1], on_front, membership)


@dataclass(frozen=True, eq=False)
class Findings:
    """All that is compared: what sentences, tables and charts are made of.

    `means` has every metric by name and cell, `against` the changes from the cell `base`, `among`
    those between pairs of cells. A change is as clear in one as in the other.
    """

    labels: dict[str, str]
    table: Table
    base: str | None
    means: dict[str, dict[str, MeanOfCell]]
    among: list[Change]
    against: list[Change]
    front: Front | None
    clips: int
    prompts: int
    least_p: float

    def cost(self, name: str, cell: str) -> tuple[int, float]:
        """What ranks cells in a metric, less is better: lost clips, which nothing makes up for,
        then the mean."""
        found = self.means[name][cell]
        is_up = self.table.metrics[name].like.better == "higher"
        return found.lost, -found.mean if is_up else found.mean

    def best(self, name: str, cells: Sequence[str]) -> str:
        return min(cells, key=lambda cell: self.cost(name, cell))

    def losses(self, what: str) -> dict[str, int]:
        """Clips that a cell has no value for and others do, by cell; empty where all lost the
        same."""
        name = self.table.key_metrics.get(what)
        lost = {cell: found.lost for cell, found in self.means.get(name, {}).items()}
        return lost if len(set(lost.values())) > 1 else {}

    @cached_property
    def frozen(self) -> set[str]:
        """Cells without a claim to little flicker: static clips, or surely less motion."""
        rows = (c for c in self.against if c.what == "motion" and c.is_ratio)
        lost = {c.cell for c in rows if c.high is not None and c.high < -MOTION_LOSS}
        static = self.means.get(self.table.key_metrics.get("motion"), {})
        return lost | {cell for cell, mean in static.items() if 2 * mean.static > mean.clips}

    @cached_property
    def _pairs(self) -> dict[tuple[str, frozenset[str]], Change]:
        return {(c.what, frozenset((c.base, c.cell))): c for c in self.among}

    def between(self, what: str, one: str, other: str) -> Change | None:
        return self._pairs.get((what, frozenset((one, other))))


def find(table: Table, base: str | None, labels: dict[str, str]) -> Findings:
    """Compare all cells with each other and with `base`."""
    means = {name: estimates(metric, table) for name, metric in table.metrics.items()}
    clusters = table.prompts(table.key_mask)
    prompts = len(set(clusters))
    counts = len(clusters), prompts, least_p(prompts) if prompts else 1.0
    found = Findings(labels, table, base, means, [], [], front_of(table), *counts)
    # One rule for all sentences: only Holm and joint sign flips are over the base's changes alone.
    own = changes(table, [(base, cell) for cell in table.cells if cell != base])
    pairs = _compared(replace(found, against=own))
    among = changes(table, pairs, num_untested=math.comb(len(table.cells), 2) - len(pairs))
    known = {(c.what, c.base, c.cell): c for c in among}
    against = [
        replace(known[c.what, c.base, c.cell], p_holm=c.p_holm, p_family=c.p_family) for c in own
    ]
    return replace(found, among=among, against=against)


def _compared(found: Findings) -> list[tuple[str, str]]:
    """All pairs of cells, the baseline first; where these are too many, those with the baseline
    or a best cell."""
    cells = sorted(found.table.cells, key=lambda cell: cell != found.base)
    pairs = list(itertools.combinations(cells, 2))
    if len(pairs) <= MOST_PAIRS:
        return pairs
    moving = [cell for cell in cells if cell not in found.frozen] or cells
    names = found.table.key_metrics.values()
    best = {found.best(name, among) for name in names for among in (cells, moving)}
    return [pair for pair in pairs if pair[0] == found.base or best & set(pair)]
