"""Frechet distance between feature sets, in float64, without a general matrix square root.

Features are [N, D], one row a clip.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

LITERATURE_N = 2048
"""Clips on each side below which a Frechet distance is not comparable with published ones."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Count, mean [D] and scatter sum((x - mean)(x - mean)^T) [D, D] of a feature set, float64."""

    n: int
    mean: Float[np.ndarray, "D"]
    scatter: Float[np.ndarray, "D D"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "N D"]) -> "Statistics":
        features = check_features(features)
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def merged(self, other: "Statistics") -> "Statistics":
        """The statistics of both sets together (Chan et al. 1983)."""
        n = self.n + other.n
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.n / n)
        between = np.outer(shift, shift) * (self.n * other.n / n)
        return Statistics(n, mean, self.scatter + other.scatter + between)

    def covariance(self, *, is_biased: bool = False) -> Float[np.ndarray, "D D"]:
        """Divided by n - 1, or by n if biased (the convention of StyleGAN-V and cd-fvd)."""
        return self.scatter / (self.n if is_biased else self.n - 1)


def check_features(features: np.ndarray) -> Float[np.ndarray, "N D"]:
    """Float64 features.

    Raises:
        ValueError: unless they are [N, D] with N >= 2 and finite.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(
            f"features have shape {features.shape}; two clips or more are needed, [N, D]."
        )
    if not np.isfinite(features).all():
        raise ValueError("features contain NaN or Inf.")
    return features


def frechet_distance(a: Statistics, b: Statistics, *, is_biased: bool = False) -> float:
    """|mu_a - mu_b|^2 + Tr A + Tr B - 2 Tr (A^1/2 B A^1/2)^1/2.

    The last trace is the sum of the singular values of A^1/2 B^1/2, both roots from symmetric
    eigenproblems. 0 for equal statistics (within 1e-8 of the trace); unit: features squared.

    Raises:
        ValueError: if the sets have features of different size.

    Source: Dowson & Landau 1982; Heusel et al. 2017, arXiv:1706.08500.
    """
    _check_same_size(len(a.mean), len(b.mean))
    covariances = [s.covariance(is_biased=is_biased) for s in (a, b)]
    roots = [_root(covariance) for covariance in covariances]
    spread = sum(float(np.trace(covariance)) for covariance in covariances)
    return _distance(a.mean - b.mean, spread, _nuclear_norm(roots[0] @ roots[1].T))


def frechet(
    x: Float[np.ndarray, "N D"], y: Float[np.ndarray, "M _"], *, is_biased: bool = False
) -> float:
    """The Frechet distance of two feature sets, exact at any number of clips.

    The trace term is a nuclear norm, Tr (A B)^1/2 = |X_c Y_c^T|_* / sqrt((n - 1)(m - 1)), of which
    the triangular factors of X_c and Y_c are enough: no covariance, no square root.

    Raises:
        ValueError: as `check_features`, and if the sets have features of different size.
    """
    x, y = check_features(x), check_features(y)
    _check_same_size(x.shape[1], y.shape[1])
    n, m = (len(x), len(y)) if is_biased else (len(x) - 1, len(y) - 1)
    shift = x.mean(axis=0) - y.mean(axis=0)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    first, second = (np.linalg.qr(rows, mode="r") for rows in (x, y))
    spread = float(np.sum(x * x) / n + np.sum(y * y) / m)
    return _distance(shift, spread, _nuclear_norm(first @ second.T) / np.sqrt(n * m))


def _root(covariance: np.ndarray) -> np.ndarray:
    """A matrix R with R^T R = covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T


def _nuclear_norm(matrix: np.ndarray) -> float:
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


def _distance(shift: np.ndarray, spread: float, cross: float) -> float:
    return float(shift @ shift + spread - 2 * cross)


def _check_same_size(a: int, b: int) -> None:
    if a != b:
        raise ValueError(f"features have {a} and {b} dimensions; both need the same net.")


@dataclass(frozen=True)
class Extrapolation:
    """`value` at infinite n, its standard error from the fit, and the slope against 1 / n."""

    value: float
    standard_error: float
    slope: float


def frechet_infinity(
    x: Float[np.ndarray, "N D"],
    y: Float[np.ndarray, "M _"],
    *,
    num_sizes: int = 12,
    repeats: int = 4,
    seed: int = 0,
) -> Extrapolation:
    """The Frechet distance extrapolated to infinitely many clips.

    FD is fitted by a line against 1 / n over subsets of both sets without replacement, n from half
    of the smaller set to all of it, several subsets a size; the intercept is the value. Rows are
    sorted first, so that the order of the clips does not matter.

    Raises:
        ValueError: below 16 clips on a side.

    Source: Chong & Forsyth 2020, arXiv:1911.07023.
    """
    x, y = _sorted_rows(check_features(x)), _sorted_rows(check_features(y))
    smaller = min(len(x), len(y))
    if smaller < 16:
        raise ValueError(f"{smaller} clips are too few to extrapolate, 16 are needed.")
    # Below two clips a dimension the covariance has no full rank and FD is no line in 1 / n.
    least = max(8, smaller // 4, min(smaller // 2, 2 * x.shape[1]))
    sizes = np.unique((1 / np.linspace(1 / least, 1 / smaller, num_sizes)).round().astype(int))
    rng = np.random.default_rng(seed)
    inverse, values = [], []
    for size in sizes:
        for _ in range(repeats):
            x_rows, y_rows = (rng.choice(len(rows), size, replace=False) for rows in (x, y))
            inverse.append(1 / size)
            values.append(frechet(x[x_rows], y[y_rows]))
    design = np.stack([np.ones(len(inverse)), np.array(inverse)], axis=1)
    fit, *_ = np.linalg.lstsq(design, np.array(values), rcond=None)
    rest = np.array(values) - design @ fit
    variance = float(rest @ rest) / max(1, len(values) - 2)
    spread = variance * np.linalg.inv(design.T @ design)[0, 0]
    return Extrapolation(float(fit[0]), float(np.sqrt(spread)), float(fit[1]))


def _sorted_rows(features: np.ndarray) -> np.ndarray:
    return features[np.lexsort(features.T[::-1])]
