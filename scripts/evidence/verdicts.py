"""Claims held against what was measured: figure, interval by prompt, and one of three verdicts.

A claim is a row of configs/evidence/claims.yaml. Its figure has a side and a bound; `holds` and
`does not hold` need a p-value, adjusted for all claims (Benjamini & Hochberg, two-sided), of 5 %.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from evidence.cells import ALIGNMENT, Made
from evidence.sets import SETS, SetValues

from vidcfg.metrics.paired import bootstrap_indices, sign_flip_p
from vidcfg.report.compare import CLEAR, FLOORS, interval_of

RESAMPLES = 2000
MOST_LOST = 0.01
"""Above so large a share of prompts without a value nothing is said."""

Cells = Mapping[str, Made]
"""The cells of one sweep, in the order of its grid."""


@dataclass(frozen=True)
class Found:
    """A figure with its 95 % interval, and one-sided p-values: that it is on the right side of
    the bound by chance (`p_holds`), on the wrong one by chance (`p_fails`).
    """

    figure: float
    low: float
    high: float
    p_holds: float
    p_fails: float
    n: int
    lost: int = 0
    about: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a claim; `adjusted` is its p-value among all claims."""

    claim: Mapping[str, Any]
    found: Found
    adjusted: float

    @property
    def word(self) -> str:
        found = self.found
        is_unclear = self.adjusted > CLEAR or found.lost > MOST_LOST * (found.n + found.lost)
        if is_unclear:
            return "cannot tell"
        return "holds" if found.p_holds < found.p_fails else "does not hold"


def judge(
    claims: Sequence[Mapping[str, Any]], sweeps: Mapping[str, Cells], sets: SetValues
) -> list[Verdict]:
    """The verdict of every claim, in order."""
    from scipy.stats import false_discovery_control

    found = [found_of(claim, sweeps[claim["sweep"]], sets) for claim in claims]
    both = [min(1.0, 2 * min(one.p_holds, one.p_fails)) for one in found]
    return list(map(Verdict, claims, found, false_discovery_control(both)))


def found_of(claim: Mapping[str, Any], cells: Cells, sets: SetValues) -> Found:
    """The figure of a claim.

    `of` is a sum of cells with weights, `each` a list of such sums that must all hold. A cell
    `best` is chosen on even prompts, all else is then taken on odd ones, with `before best` and
    `after best` its neighbours. `equal` is `at_equal`.
    """
    if "equal" in claim:
        return _signed(at_equal(claim["equal"], claim["metric"], cells), claim)
    rows, names, about = slice(None), {}, ""
    if "best" in claim:
        among = claim["best"].get("among") or list(cells)
        index = _best(claim["best"], among, cells, sets)
        names = {"best": among[index]}
        names |= {"before best": among[index - 1]} if index else {}
        names |= {"after best": among[index + 1]} if index + 1 < len(among) else {}
        rows, about = slice(1, None, 2), f"best: {among[index]}, chosen on the other half"
    parts = []
    for sum_of in claim.get("each") or [claim["of"]]:
        lacks = [name for name in sum_of if name.endswith("best") and name not in names]
        # The best is at an end: that it is better than its one neighbour speaks against the claim.
        weights = {names.get(n, n): w for n, w in sum_of.items() if n not in lacks}
        if lacks:
            other = names["after best" if "before best" in lacks else "before best"]
            weights |= {other: sum_of[lacks[0]]}
        found = _sum_of(weights, claim, cells, rows, sets)
        part = _signed(found, claim)
        if lacks:
            part = replace(part, p_holds=1.0, p_fails=part.p_holds)
        parts.append(part)
    return replace(_all_of(parts, claim), about=about)


def _all_of(parts: list[Found], claim: Mapping[str, Any]) -> Found:
    """That all hold: the weakest one, and that any fails."""
    sign = 1 if claim["side"] == "above" else -1

    def weakness(part: Found) -> tuple[float, float, float]:
        # Of p-values that no resample reached, the one whose interval is nearest to the bound.
        distance = sign * (part.figure - claim["bound"])
        return part.p_holds, -part.p_fails, -distance / max(part.high - part.low, 1e-12)

    weakest = max(parts, key=weakness)
    fails = min(1.0, len(parts) * min(part.p_fails for part in parts))
    return replace(weakest, p_fails=fails)


@dataclass(frozen=True)
class Estimate:
    """A figure, its interval, how sure it is above any bound, and how it is read."""

    figure: float
    ends: tuple[float, float]
    p_above: Callable[[float], tuple[float, float]]
    n: int
    lost: int
    is_ratio: bool


def _signed(estimate: Estimate, claim: Mapping[str, Any]) -> Found:
    bound = math.log1p(claim["bound"]) if estimate.is_ratio else claim["bound"]
    above, below = estimate.p_above(bound)
    holds, fails = (above, below) if claim["side"] == "above" else (below, above)
    read = math.expm1 if estimate.is_ratio else float
    figures = (read(x) for x in (estimate.figure, *estimate.ends))
    return Found(*figures, holds, fails, estimate.n, estimate.lost)


def _sum_of(
    weights: Mapping[str, float], claim: Mapping, cells: Cells, rows: slice, sets: SetValues
) -> Estimate:
    name, is_ratio = claim["metric"], bool(claim.get("relative"))
    if name in SETS:
        return _sum_of_sets(weights, claim, cells, rows, sets)
    values = paired(weights, name, cells, is_ratio=is_ratio)[rows]
    known = values[np.isfinite(values)]
    clusters = np.arange(len(known))

    def p_above(bound: float) -> tuple[float, float]:
        rest = known - bound
        return tuple(sign_flip_p(rest, clusters, alternative=a) for a in ("greater", "less"))

    ends = interval_of(known, "")
    lost = len(values) - len(known)
    return Estimate(float(known.mean()), ends, p_above, len(known), lost, is_ratio)


def paired(
    weights: Mapping[str, float], name: str, cells: Cells, *, is_ratio: bool = False
) -> np.ndarray:
    """The weighted sum over cells of a metric by prompt [N]; of its logarithm if `is_ratio`."""
    total = 0.0
    for cell, weight in weights.items():
        values = cells[cell].values[name]
        total = total + weight * (np.log(values + FLOORS["intensity"]) if is_ratio else values)
    return total


def _best(best: Mapping[str, Any], among: list[str], cells: Cells, sets: SetValues) -> int:
    """The place of the cell with the highest or lowest metric on even prompts."""
    name, even = best["metric"], slice(0, None, 2)
    if name in SETS:
        values = [sets.values(name, cells[cell], even)[0] for cell in among]
    else:
        values = [np.nanmean(cells[cell].values[name][even]) for cell in among]
    return int(np.argmax(values) if best["side"] == "highest" else np.argmin(values))


def _sum_of_sets(
    weights: Mapping[str, float], claim: Mapping, cells: Cells, rows: slice, sets: SetValues
) -> Estimate:
    name, is_ratio, total = claim["metric"], bool(claim.get("relative")), 0.0
    for cell, weight in weights.items():
        values = sets.values(name, cells[cell], rows)
        total = total + weight * (np.log(values) if is_ratio else values)
    num = len(next(iter(cells.values())).features[rows])
    return _normal(float(total[0]), float(total[1:].std()), num, is_ratio=is_ratio)


def _normal(figure: float, error: float, n: int, *, lost: int = 0, is_ratio: bool) -> Estimate:
    from scipy.special import ndtr

    def p_above(bound: float) -> tuple[float, float]:
        if not math.isfinite(figure):
            return 1.0, 1.0
        z = (figure - bound) / max(error, 1e-12)
        return float(ndtr(-z)), float(ndtr(z))

    ends = figure - 1.96 * error, figure + 1.96 * error
    return Estimate(figure, ends, p_above, n, lost, is_ratio)


def at_equal(equal: Mapping[str, Any], name: str, cells: Cells) -> Estimate:
    """How a metric changes from the cell `at` to the point of the cells that begin with `line` (in
    rising scale) that has the same alignment, as a log ratio of means.

    Both are curves of means over prompts; prompts are resampled for both alike. Only the part of
    the line counts on which alignment rises; where it does not reach that of `at` in more than
    5 % of the resamples, nothing is said.
    """
    names = [equal["at"], *(name for name in cells if name.startswith(equal["line"]))]
    levels = np.stack([cells[n].values[ALIGNMENT] for n in names])
    values = np.stack([cells[n].values[name] for n in names])
    known = np.isfinite(levels).all(axis=0) & np.isfinite(values).all(axis=0)
    lost = int((~known).sum())
    levels, values = levels[:, known], values[:, known]
    num = levels.shape[1]
    drawn = bootstrap_indices(np.arange(num), resamples=RESAMPLES)
    counts = np.stack([np.bincount(row, minlength=num) for row in drawn]) / num

    def change(level_C: np.ndarray, value_C: np.ndarray) -> float:
        return math.log(crossing(level_C[1:], value_C[1:], level_C[0]) / value_C[0])

    figure = change(levels.mean(axis=1), values.mean(axis=1))
    pairs = zip((levels @ counts.T).T, (values @ counts.T).T)
    resampled = np.array([change(*pair) for pair in pairs])
    reached = resampled[np.isfinite(resampled)]
    if not math.isfinite(figure) or len(reached) < 0.95 * RESAMPLES:
        return _normal(math.nan, math.nan, num, lost=lost, is_ratio=True)
    made = _normal(figure, float(reached.std(ddof=1)), num, lost=lost, is_ratio=True)
    ends = tuple(np.percentile(reached, (2.5, 97.5)))
    return replace(made, ends=ends)


def crossing(levels: np.ndarray, values: np.ndarray, level: float) -> float:
    """The value where a curve first reaches a level, linear between points; NaN where it does
    not, or begins above it. What follows the highest level is left out."""
    stop = int(np.argmax(levels)) + 1
    rising = np.maximum.accumulate(levels[:stop])
    if not rising[0] <= level <= rising[-1]:
        return float("nan")
    return float(np.interp(level, rising, values[:stop]))


def bayes_share(num_values: int, scale: float, wrong: float) -> float:
    """How often an attribute of k values is as its prompt says at a guidance scale s, for exact
    predictions of a model whose captions name a wrong value with probability q:

        1 / (1 + (k - 1) r^s),   r = q / ((k - 1) (1 - q))
    """
    ratio = wrong / ((num_values - 1) * (1 - wrong))
    return 1 / (1 + (num_values - 1) * ratio**scale)
