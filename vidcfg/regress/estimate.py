"""How large the change of one metric is, and how sure that is. Pure numbers."""

import math
from dataclasses import dataclass

import numpy as np

from vidcfg.metrics.paired import (
    cluster_bootstrap,
    cluster_means,
    minimum_detectable_effect,
    sign_flip_p,
)
from vidcfg.regress.policy import MetricRule, Policy


@dataclass(frozen=True, eq=False)
class Pairs:
    """One metric of paired clips, NaN where a clip has no value, and the clips' prompts."""

    new_N: np.ndarray
    base_N: np.ndarray
    clusters_N: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Estimate:
    """The change of a metric over the clips that have it on both sides.

    `worse_n` is positive in the bad direction, on the scale that is tested (log ratio or
    difference); `point`, `low` and `high` (90 % interval by prompt) are its mean. `absolute` is
    the mean plain difference in the bad direction. `margin` is on the scale of `worse_n`.
    `direction` is 1 if up is bad, -1 if down is. `p` covers both the change and lost clips.
    """

    rule: MetricRule
    positions_n: np.ndarray
    clusters_n: tuple[str, ...]
    worse_n: np.ndarray
    difference_n: np.ndarray
    direction: int
    p: float
    lost: int
    gained: int
    compared: int
    base_mean: float = math.nan
    new_mean: float = math.nan
    point: float = math.nan
    low: float = math.nan
    high: float = math.nan
    absolute: float = math.nan
    margin: float = math.nan

    @property
    def is_above(self) -> bool:
        """The mean change is above both margins."""
        return self.point > self.margin and self.absolute > self.rule.at_least

    def shown(self, worse: float) -> float:
        """A change on the tested scale as the reader sees it: relative or plain, positive up."""
        change = self.direction * worse
        if self.rule.scale == "difference" or not math.isfinite(change):
            return change
        return math.expm1(min(change, 700.0))

    def is_within(self, alpha: float) -> bool:
        """The change is shown to be below one of the margins, at level alpha, or is exactly 0."""
        x, clusters = self.worse_n, self.clusters_n
        if not x.any():
            # Values that are equal bit for bit need no statistics.
            return True
        within = _is_below(x, clusters, self.margin, alpha, self.high)
        if self.rule.bad == "either":
            other = margin_of(self.rule, -self.direction)
            within = within and _is_below(-x, clusters, other, alpha, -self.low)
        if within or not self.rule.at_least > 0:
            return within
        d = self.difference_n
        high = cluster_bootstrap(d, clusters, level=0.9).high
        return _is_below(d, clusters, self.rule.at_least, alpha, high)

    def detectable(self, alpha: float, power: float) -> float | None:
        """The change, as shown, that is found with that power; at least the margin."""
        found = minimum_detectable_effect(self.worse_n, self.clusters_n, alpha=alpha, power=power)
        size = abs(self.shown(max(found, self.margin)))
        return size if math.isfinite(size) else None


def _is_below(x: np.ndarray, clusters, margin: float, alpha: float, high: float) -> bool:
    # The interval alone is too short for a handful of prompts; the test is exact.
    return high < margin and sign_flip_p(margin - x, clusters) <= alpha


def estimate(rule: MetricRule, pairs: Pairs, policy: Policy) -> Estimate | None:
    """The estimate of a metric; None if no clip has a value on either side in the baseline."""
    has_new, has_base = np.isfinite(pairs.new_N), np.isfinite(pairs.base_N)
    both, clusters = has_new & has_base, np.asarray(pairs.clusters_N)
    lost, gained = has_base & ~has_new, has_new & ~has_base
    p_values, fields = [], {}
    change = difference = np.zeros(0)
    direction = -1 if rule.bad == "down" else 1
    kept = clusters[both]
    if both.any():
        change, difference = changes(rule, pairs.new_N[both], pairs.base_N[both])
        if rule.bad == "either" and cluster_means(change, kept).mean() < 0:
            direction = -1
        change, difference = direction * change, direction * difference
        p = sign_flip_p(change, kept)
        p_values.append(min(1.0, 2 * p) if rule.bad == "either" else p)
        fields = _fields(rule, pairs, both, change, difference, kept, direction)
    if lost.any():
        # A clip that can no longer be measured has changed too.
        p_values.append(sign_flip_p(lost.astype(float) - gained, clusters))
    if not p_values:
        return None
    return Estimate(
        rule=rule,
        positions_n=np.flatnonzero(both),
        clusters_n=tuple(kept.tolist()),
        worse_n=change,
        difference_n=difference,
        direction=direction,
        p=min(1.0, len(p_values) * min(p_values)),
        lost=int(lost.sum()),
        gained=int(gained.sum()),
        compared=int(has_base.sum()),
        **fields,
    )


def _fields(rule, pairs, both, change, difference, clusters, direction: int) -> dict:
    interval = cluster_bootstrap(change, clusters, level=0.9)
    means = {
        "base_mean": pairs.base_N[both],
        "new_mean": pairs.new_N[both],
        "point": change,
        "absolute": difference,
    }
    found = {name: float(cluster_means(x, clusters).mean()) for name, x in means.items()}
    return found | {
        "low": interval.low,
        "high": interval.high,
        "margin": margin_of(rule, direction),
    }


def changes(rule: MetricRule, new: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The change of every pair on the rule's scale, and its plain difference; positive is up."""
    new, base = transformed(rule, new), transformed(rule, base)
    difference = new - base
    if rule.scale == "difference":
        return difference, difference
    # Values that cannot be negative can fall below 0 by rounding.
    new, base = np.maximum(new, 0), np.maximum(base, 0)
    return np.log((new + rule.floor) / (base + rule.floor)), difference


def transformed(rule: MetricRule, values: np.ndarray) -> np.ndarray:
    """The values that are compared: `rule.of` them."""
    if rule.of == "complement":
        return 1 - values
    return np.abs(values) if rule.of == "magnitude" else values


def margin_of(rule: MetricRule, direction: int) -> float:
    """The margin on the scale of `changes`, for a change up (1) or down (-1)."""
    if rule.scale == "difference":
        return rule.margin
    return math.log1p(rule.margin) if direction > 0 else -math.log1p(-rule.margin)
