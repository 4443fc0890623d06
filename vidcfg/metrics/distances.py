"""Distances between feature sets [N, D], one row a clip, in float64; unit: features squared."""

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Rows = Float[np.ndarray, "N D"]
Others = Float[np.ndarray, "M _"]
"""Two sets of features, which both need the same net."""

_SURE = 1e-9
"""The share of a sum of roots that rounding may change, by its bound."""


class Estimated(NamedTuple):
    """A value and its standard error, None where it is unknown."""

    value: float
    standard_error: float | None = None


class Prdc(NamedTuple):
    """Shares in [0, 1], density in [0, M]. Equal distributions do not give 1 everywhere."""

    precision: float
    recall: float
    density: float
    coverage: float


def checked(x: Rows, y: Others) -> tuple[Rows, Float[np.ndarray, "M D"]]:
    """Two feature sets in float64.

    Raises:
        ValueError: unless they are finite, of two clips or more, and of the same size.
    """
    x, y = _checked_rows(x), _checked_rows(y)
    _check_alike(x, y)
    return x, y


def _checked_rows(features: np.ndarray) -> Rows:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(
            f"features have shape {features.shape}; two clips or more are needed, [N, D]."
        )
    if not np.isfinite(features).all():
        raise ValueError("features contain NaN or Inf.")
    return features


def _check_alike(x: np.ndarray, y: np.ndarray) -> None:
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features have {x.shape[1]} and {y.shape[1]} dimensions; both need the same net."
        )


def sorted_rows(features: np.ndarray) -> np.ndarray:
    """Rows in an order that does not depend on the one they came in."""
    return features[np.lexsort(features.T[::-1])]


class Moments:
    """What the Frechet distance needs of features [N, D]; kept, it is computed once."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = _checked_rows(features)

    @cached_property
    def mean(self) -> Float[np.ndarray, "D"]:
        return self.features.mean(axis=0)

    @cached_property
    def centred(self) -> Rows:
        return self.features - self.mean

    @cached_property
    def products(self) -> Float[np.ndarray, "D D"]:
        """The covariance times its divisor."""
        return self.centred.T @ self.centred

    @cached_property
    def lower(self) -> Float[np.ndarray, "D D"]:
        """Lower L with L L^T = `products`; LinAlgError where a dimension depends on others."""
        return np.linalg.cholesky(self.products)

    @cached_property
    def root(self) -> Float[np.ndarray, "K D"]:
        """R of no more than D rows with R^T R = `products`."""
        rows = self.centred
        return rows if len(rows) <= rows.shape[1] else np.linalg.qr(rows, mode="r")


FeatureSet = Float[np.ndarray, "_ _"] | Moments


def frechet(x: FeatureSet, y: FeatureSet, *, is_biased: bool = False) -> float:
    """The Frechet distance of two sets of features [N, D], exact at any number of clips.

        |mu_x - mu_y|^2 + Tr A + Tr B - 2 Tr (A B)^1/2

    A and B are covariances, divided by n - 1, or by n if biased (as StyleGAN-V and cd-fvd do). The
    last trace is the sum of the singular values of X_c Y_c^T / sqrt((n - 1)(m - 1)). With fewer
    clips than dimensions these are taken; else the roots of the eigenvalues of A B, unless one of
    them is so small that it is lost in rounding. No square root of a matrix is taken.

    Source: Dowson & Landau 1982; Heusel et al. 2017, arXiv:1706.08500.
    """
    x, y = (given if isinstance(given, Moments) else Moments(given) for given in (x, y))
    _check_alike(x.features, y.features)
    n, m = (len(each.features) - (not is_biased) for each in (x, y))
    shift = x.mean - y.mean
    spread = np.vdot(x.centred, x.centred) / n + np.vdot(y.centred, y.centred) / m
    return float(shift @ shift + spread - 2 * _cross(x, y) / np.sqrt(n * m))


def _cross(x: Moments, y: Moments) -> float:
    """The sum of the singular values of X_c Y_c^T."""
    if min(len(x.features), len(y.features)) > x.features.shape[1]:
        from scipy.linalg.lapack import dsygst

        with suppress(np.linalg.LinAlgError):
            # The squares are the eigenvalues of the product of both `products`, in rising order.
            similar, _ = dsygst(x.products, y.lower, itype=2, lower=1)
            squares = np.linalg.eigvalsh(similar, UPLO="L")
            roots = np.sqrt(np.maximum(squares, np.finfo(float).tiny))
            if np.finfo(float).eps / 2 * squares[-1] * (1 / roots).sum() < _SURE * roots.sum():
                return float(roots.sum())
    return float(np.linalg.svd(x.root @ y.root.T, compute_uv=False).sum())


def frechet_infinity(x: Rows, y: Others) -> Estimated:
    """The Frechet distance extrapolated to infinitely many clips, with the error of the fit.

    FD is fitted by a line against 1 / n over subsets of both sets without replacement, n from half
    of the smaller set to all of it, 4 subsets for each of 12 sizes; the intercept is the value.
    Rows are sorted first, so that the order of the clips does not matter.

    Raises:
        ValueError: below 16 clips on a side, or below two clips a dimension: there the
            covariance has no full rank and FD is no line in 1 / n.

    Source: Chong & Forsyth 2020, arXiv:1911.07023.
    """
    x, y = (sorted_rows(features) for features in checked(x, y))
    smaller = min(len(x), len(y))
    needed = max(16, 2 * x.shape[1])
    if smaller < needed:
        raise ValueError(f"{smaller} clips are too few to extrapolate, {needed} are needed.")
    least = max(8, smaller // 4, min(smaller // 2, 2 * x.shape[1]))
    sizes = np.unique((1 / np.linspace(1 / least, 1 / smaller, 12)).round().astype(int))
    sizes = np.repeat(sizes, 4)
    rng = np.random.default_rng(0)
    values = np.empty(len(sizes))
    for index, size in enumerate(sizes):
        x_rows, y_rows = (rng.choice(len(rows), size, replace=False) for rows in (x, y))
        values[index] = frechet(x[x_rows], y[y_rows])
    # The line, and the standard error of its intercept.
    design = np.stack([np.ones(len(sizes)), 1 / sizes], axis=1)
    fit, *_ = np.linalg.lstsq(design, values, rcond=None)
    rest = values - design @ fit
    variance = float(rest @ rest) / max(1, len(values) - 2)
    spread = variance * np.linalg.inv(design.T @ design)[0, 0]
    return Estimated(float(fit[0]), float(np.sqrt(spread)))


def polynomial_kernel(x: Rows, y: Others) -> Float[np.ndarray, "N M"]:
    """(x.y / D + 1)^3."""
    return (1 / x.shape[1] * (x @ y.T) + 1.0) ** 3


def kernel_distance(x: Rows, y: Others) -> Estimated:
    """Squared maximum mean discrepancy with a polynomial kernel.

        mean k(x, x') + mean k(y, y') - 2 mean k(x, y),   x' != x, y' != y

    Unbiased: equal distributions give 0 on average at any n, and single values may be negative.
    The standard error is the delete-one jackknife of both sets, from three clips on.

    Source: Gretton et al. 2012; Binkowski et al. 2018, arXiv:1801.01401.
    """
    x, y = checked(x, y)
    kxx, kyy, kxy = (polynomial_kernel(a, b) for a, b in ((x, x), (y, y), (x, y)))
    for kernel in (kxx, kyy):
        np.fill_diagonal(kernel, 0)
    n, m = len(x), len(y)
    within_x, within_y = kxx.sum() / (n * (n - 1)), kyy.sum() / (m * (m - 1))
    value = within_x + within_y - 2 * kxy.mean()
    if min(n, m) < 3:
        return Estimated(float(value))
    drops = [
        _delete_one(kxx, kxy.sum(axis=1), other=within_y, size_other=m),
        _delete_one(kyy, kxy.sum(axis=0), other=within_x, size_other=n),
    ]
    variance = sum((len(d) - 1) / len(d) * np.sum((d - d.mean()) ** 2) for d in drops)
    return Estimated(float(value), float(np.sqrt(variance)))


def _delete_one(
    kernel: np.ndarray, cross_rows: np.ndarray, *, other: float, size_other: int
) -> np.ndarray:
    """The distance without row i, for every i; `kernel` has a zero diagonal."""
    n = len(kernel)
    within = (kernel.sum() - 2 * kernel.sum(axis=1)) / ((n - 1) * (n - 2))
    cross = (cross_rows.sum() - cross_rows) / ((n - 1) * size_other)
    return within + other - 2 * cross


def mind(x: Rows, y: Others, *, num_directions: int = 2000) -> float:
    """3 D times the mean over random unit directions of the squared distance of sorted
    projections.

    A sliced Wasserstein distance: exactly 0 for equal sets, 3 D m^2 for a shift by m in every
    coordinate. Sets of different size are compared at the quantiles of the smaller one.

    Source: arXiv:2605.06797.
    """
    x, y = checked(x, y)
    width, rng, total = x.shape[1], np.random.default_rng(0), 0.0
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


def prdc(real: Rows, generated: Others, *, k: int = 5) -> Prdc:
    """k-nearest-neighbour manifolds; r_k is the distance to the k-th neighbour without the point
    itself.

        precision = mean_j [some i: d(x_i, y_j) < r_k(x_i)]      recall: the same with sets swapped
        density = 1 / (k M) sum_j #{i: d(x_i, y_j) < r_k(x_i)}
        coverage = mean_i [min_j d(x_i, y_j) < r_k(x_i)]

    x is real (N), y generated (M).

    Raises:
        ValueError: if a set has k rows or fewer.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797.
    """
    real, generated = checked(real, generated)
    num_real, num_generated = len(real), len(generated)
    if min(num_real, num_generated) <= k:
        raise ValueError(
            f"k is {k}, and the sets have {num_real} and {num_generated} clips; "
            "more than k are needed in both."
        )
    real_radius, generated_radius = _radii(real, k), _radii(generated, k)
    balls_around_generated = np.zeros(num_generated, dtype=np.int64)
    is_recalled, is_covered = np.zeros(num_real, dtype=bool), np.zeros(num_real, dtype=bool)
    for rows, distance in _distances(real, generated):
        balls_around_generated += (distance < real_radius[rows, None]).sum(axis=0)
        is_recalled[rows] = (distance < generated_radius).any(axis=1)
        is_covered[rows] = distance.min(axis=1) < real_radius[rows]
    return Prdc(
        precision=float(np.mean(balls_around_generated > 0)),
        recall=float(np.mean(is_recalled)),
        density=float(balls_around_generated.sum() / (k * num_generated)),
        coverage=float(np.mean(is_covered)),
    )


def _radii(features: np.ndarray, k: int) -> np.ndarray:
    """Distance of every row to its k-th neighbour; the row itself is the 0-th."""
    blocks = [np.partition(d, k, axis=1)[:, k] for _, d in _distances(features, features)]
    return np.concatenate(blocks)


def _distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of rows of the distance matrix: memory stays at 512 x M."""
    from scipy.spatial.distance import cdist

    for start in range(0, len(x), 512):
        rows = slice(start, start + 512)
        yield rows, cdist(x[rows], y)
