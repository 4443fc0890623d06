"""Paired comparisons of clips: log ratios, sign-flip tests, bootstrap by prompt, multiplicity.

Clips are paired by (prompt, seed); clips of one prompt form a cluster, because they share what
makes the prompt hard. Every cluster counts once, whatever the number of its clips. Needs numpy
and scipy alone.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

EXACT_CLUSTERS = 20
"""Up to this many clusters all 2^G sign patterns are counted."""

RESAMPLES = 19_999
"""Random sign patterns beyond that; the smallest p-value is then 1 / 20000."""

MAX_CLIPS = 1_000_000

Values = Sequence[float | int] | np.ndarray
Clusters = Sequence | np.ndarray
"""A name or number for each value: those of one prompt are equal."""


def log_ratios(new_N: Values, base_N: Values, *, floor: float | int) -> Float[np.ndarray, "N"]:
    """log((new + floor) / (base + floor)) for every pair; 0.05 is a rise of about 5 %.

    `floor` is the size below which a difference is rounding, such as a quarter of an 8-bit level.

    Raises:
        ValueError: if the lengths differ, a value is negative, NaN or infinite, or the floor is
            not above 0.
    """
    new, base = (np.asarray(x, dtype=np.float64) for x in (new_N, base_N))
    if new.shape != base.shape or new.ndim != 1:
        raise ValueError(f"{new.shape} and {base.shape} values are no pairs.")
    if not floor > 0:
        raise ValueError(f"floor is {floor}, it has to be above 0.")
    both = np.concatenate([new, base])
    if not np.isfinite(both).all() or (both < 0).any():
        raise ValueError("log ratios need values that are finite and at least 0.")
    return np.log((new + floor) / (base + floor))


def cluster_means(values_N: Values, clusters_N: Clusters) -> Float[np.ndarray, "G"]:
    """The mean of each cluster, clusters in sorted order.

    Raises:
        ValueError: if there are no values, one is not finite, or the lengths differ.
    """
    values = np.asarray(values_N, dtype=np.float64)
    if values.ndim != 1 or len(values) != len(clusters_N):
        raise ValueError(f"{values.shape} values do not fit {len(clusters_N)} clusters.")
    if not len(values):
        raise ValueError("there are no values.")
    if not np.isfinite(values).all():
        raise ValueError("a paired test needs finite values.")
    inverse = _places(tuple(clusters_N))
    return np.bincount(inverse, weights=values) / np.bincount(inverse)


@lru_cache(maxsize=64)
def _places(clusters_N: tuple) -> np.ndarray:
    """Of each value the place of its cluster among the sorted ones; asked for again and again."""
    return np.unique(np.asarray(clusters_N), return_inverse=True)[1]


def sign_flip_p(values_N: Values, clusters_N: Clusters, *, alternative: str = "greater") -> float:
    """How often random signs give cluster means whose sum is as large as the observed one.

    Exact for up to 20 clusters, else over RESAMPLES random patterns with the observed one
    counted in. Valid if, without a change, a difference is as likely as its negative.
    `alternative` is `greater`, `less` or `two-sided` (twice the smaller of both, at most 1).

    Raises:
        ValueError: for another alternative, no values, or values that are not finite.
    """
    less, greater = _tails(cluster_means(values_N, clusters_N))
    both = min(1.0, 2 * min(less, greater))
    p_values = {"greater": greater, "less": less, "two-sided": both}
    if alternative not in p_values:
        raise ValueError(f"alternative is {alternative!r}: greater, less or two-sided.")
    return p_values[alternative]


def skewness_corrected_p(values_N: Values, clusters_N: Clusters) -> float:
    """One-sided p-value of the mean of the cluster means, by Hall's t.

        t = sqrt(G) (S + g S^2 / 3 + g^2 S^3 / 27 + g / (6 G)),   S = mean / sd, g the skewness

    With G - 1 degrees of freedom; g = 0 is Student's t. Where a few low values hide among many
    high ones Student's test errs too often, this one less. 1 for one cluster.

    Source: Hall 1992, On the removal of skewness by transformation, JRSS B 54.
    """
    from scipy.special import stdtr

    means = cluster_means(values_N, clusters_N)
    num, point = len(means), float(means.mean())
    if num < 2:
        return 1.0
    sd = float(means.std(ddof=1))
    if sd <= 1e-12 * abs(point):
        return 0.0 if point > 0 else 1.0
    size, skew = point / sd, float(np.mean((means - point) ** 3)) / sd**3
    t = size + skew * size**2 / 3 + skew**2 * size**3 / 27 + skew / (6 * num)
    return float(stdtr(num - 1, -math.sqrt(num) * t))


def smallest_p(num_clusters: int) -> float:
    """The smallest one-sided p-value that so many clusters can give."""
    return 0.5**num_clusters if num_clusters <= EXACT_CLUSTERS else 1 / (RESAMPLES + 1)


def _tails(means_G: np.ndarray) -> tuple[float, float]:
    """The shares of sign patterns whose sum is at most, and at least, as large as observed."""
    # Equal sums differ by rounding; they count as ties.
    slack = 1e-12 * float(np.abs(means_G).sum())
    observed = float(means_G.sum())
    if len(means_G) <= EXACT_CLUSTERS:
        # Sums come in pairs of opposite sign: what is below one is above its negative.
        half = len(means_G) // 2
        left, right = _signed_sums(means_G[:half]), np.sort(_signed_sums(means_G[half:]))
        total = len(left) * len(right)
        below = [
            int(np.searchsorted(right, sign * observed - slack - left, side="left").sum())
            for sign in (-1, 1)
        ]
        return (total - below[0]) / total, (total - below[1]) / total
    sums = _random_signs(len(means_G)) @ means_G
    counts = (sums <= observed + slack).sum(), (sums >= observed - slack).sum()
    lower, upper = ((1 + int(count)) / (1 + RESAMPLES) for count in counts)
    return lower, upper


def _signed_sums(values: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


@lru_cache(maxsize=8)
def _random_signs(num_clusters: int) -> np.ndarray:
    bits = np.random.default_rng(0).integers(0, 2, (RESAMPLES, num_clusters), dtype=np.int8)
    return (2 * bits - 1).astype(np.float64)


def bootstrap_indices(clusters_N: Clusters, *, resamples: int = 2000) -> Int[np.ndarray, "R G"]:
    """Clusters drawn with replacement, as positions in the sorted different clusters.

    Depends on the number of clusters alone: cells of a sweep that share their
    prompts are resampled alike, so that their differences stay paired.
    """
    num_clusters = len(np.unique(np.asarray(clusters_N)))
    if not num_clusters:
        raise ValueError("there are no clusters.")
    return np.random.default_rng(0).integers(0, num_clusters, (resamples, num_clusters))


def holm(p_values: Values, *, weights: Values | None = None) -> Float[np.ndarray, "M"]:
    """p-values adjusted so that rejecting those up to alpha errs once or more with at most alpha.

    With weights, a hypothesis of twice the weight is tested at twice the level (all 1 = plain).

    Raises:
        ValueError: if a p-value is outside [0, 1], or weights do not fit or are not above 0.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values have to be from 0 to 1, not {p_values}.")
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != p.shape or not (w > 0).all():
        raise ValueError(f"{w.shape} weights above 0 are needed for {len(p)} p-values.")
    order = np.argsort(p / w, kind="stable")
    remaining = np.cumsum(w[order][::-1])[::-1]
    stepped = np.maximum.accumulate(p[order] / w[order] * remaining)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _detectable(sd: float, num: int, alpha: float, power: float) -> float:
    """(t_{1-alpha} + t_{power}) sd / sqrt(G),   t of G - 1 degrees of freedom."""
    from scipy.special import stdtrit

    reach = float(stdtrit(num - 1, 1 - alpha) + stdtrit(num - 1, power))
    return reach * sd / math.sqrt(num)


def needed_clips(
    values_N: Values,
    clusters_N: Clusters,
    *,
    effect: float | int,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """The number of clips, at as many clips a cluster as given, that finds a change of `effect`.

    At least so many clusters that the smallest p-value of a sign-flip test reaches alpha. None
    above a million, or if one cluster leaves the spread unknown.
    """
    means = cluster_means(values_N, clusters_N)
    if len(means) < 2 or not effect > 0:
        return None
    sd, clips_each = float(np.std(means, ddof=1)), len(values_N) / len(means)
    low = max(2, math.ceil(-math.log2(alpha)))
    high = max(low, int(MAX_CLIPS / clips_each))
    if _detectable(sd, high, alpha, power) > effect:
        return None
    more = bisect_left(
        range(low, high), True, key=lambda num: _detectable(sd, num, alpha, power) <= effect
    )
    return math.ceil((low + more) * clips_each)
