"""Kernel distance (MMD) and sliced distance (MIND) between feature sets [N, D]."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vidcfg.metrics.frechet import check_features


@dataclass(frozen=True)
class KernelDistance:
    """`value` and its jackknife standard error (None for the biased form)."""

    value: float
    standard_error: float | None = None


def polynomial_kernel(
    x: Float[np.ndarray, "N D"],
    y: Float[np.ndarray, "M _"],
    *,
    degree: int = 3,
    gamma: float | None = None,
    offset: float = 1.0,
) -> Float[np.ndarray, "N M"]:
    """(gamma x.y + offset)^degree; gamma is 1 / D unless given."""
    gamma = 1 / x.shape[1] if gamma is None else gamma
    return (gamma * (x @ y.T) + offset) ** degree


def kernel_distance(
    x: Float[np.ndarray, "N D"],
    y: Float[np.ndarray, "M _"],
    *,
    degree: int = 3,
    gamma: float | None = None,
    offset: float = 1.0,
    is_biased: bool = False,
) -> KernelDistance:
    """Squared maximum mean discrepancy with a polynomial kernel.

        mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

    Unbiased (default): x' != x, so that equal distributions give 0 on average at any n, and single
    values may be negative. The standard error is the delete-one jackknife of both sets. Biased:
    all pairs, as in JEDi.

    Raises:
        ValueError: if the sets have features of different size, or fewer than two rows (three for
        the
            jackknife of the unbiased form).

    Source: Gretton et al. 2012; Binkowski et al. 2018, arXiv:1801.01401 (degree 3, gamma 1 / D,
    offset 1).
    """
    x, y = check_features(x), check_features(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features have {x.shape[1]} and {y.shape[1]} dimensions; both need the same net."
        )
    options = {"degree": degree, "gamma": gamma, "offset": offset}
    kxx, kyy, kxy = (polynomial_kernel(a, b, **options) for a, b in ((x, x), (y, y), (x, y)))
    if is_biased:
        return KernelDistance(float(kxx.mean() + kyy.mean() - 2 * kxy.mean()))
    for kernel in (kxx, kyy):
        np.fill_diagonal(kernel, 0)
    n, m = len(x), len(y)
    within_x, within_y = kxx.sum() / (n * (n - 1)), kyy.sum() / (m * (m - 1))
    value = within_x + within_y - 2 * kxy.mean()
    if min(n, m) < 3:
        return KernelDistance(float(value))
    drops = [
        _delete_one(kxx, kxy.sum(axis=1), other=within_y, size_other=m),
        _delete_one(kyy, kxy.sum(axis=0), other=within_x, size_other=n),
    ]
    variance = sum((len(d) - 1) / len(d) * np.sum((d - d.mean()) ** 2) for d in drops)
    return KernelDistance(float(value), float(np.sqrt(variance)))


def _delete_one(
    kernel: np.ndarray, cross_rows: np.ndarray, *, other: float, size_other: int
) -> np.ndarray:
    """The distance without row i, for every i; `kernel` has a zero diagonal."""
    n = len(kernel)
    within = (kernel.sum() - 2 * kernel.sum(axis=1)) / ((n - 1) * (n - 2))
    cross = (cross_rows.sum() - cross_rows) / ((n - 1) * size_other)
    return within + other - 2 * cross


def mind(
    x: Float[np.ndarray, "N D"],
    y: Float[np.ndarray, "M _"],
    *,
    num_directions: int = 2000,
    seed: int = 0,
) -> float:
    """3 D times the mean over random unit directions of the squared distance of sorted
    projections.

    A sliced Wasserstein distance: exactly 0 for equal sets, 3 D m^2 for a shift by m in every
    coordinate. Sets of different size are compared at the quantiles of the smaller one.

    Source: arXiv:2605.06797.
    """
    x, y = check_features(x), check_features(y)
    width = x.shape[1]
    rng = np.random.default_rng(seed)
    total = 0.0
    # Blocks of directions bound the memory to a few tens of MB for thousands of clips.
    for start in range(0, num_directions, 256):
        directions = rng.standard_normal((width, min(256, num_directions - start)))
        directions /= np.linalg.norm(directions, axis=0)
        a, b = np.sort(x @ directions, axis=0), np.sort(y @ directions, axis=0)
        total += float(np.mean((_quantiles(a, len(b)) - _quantiles(b, len(a))) ** 2, axis=0).sum())
    return 3 * width * total / num_directions


def _quantiles(sorted_values: np.ndarray, other: int) -> np.ndarray:
    """Values at the mid-quantiles of the smaller set, linear in between."""
    num = len(sorted_values)
    if num <= other:
        return sorted_values
    position = (np.arange(other) + 0.5) / other * num - 0.5
    lower = np.floor(position).astype(int)
    part = (position - lower)[:, None]
    return sorted_values[lower] * (1 - part) + sorted_values[np.minimum(lower + 1, num - 1)] * part
