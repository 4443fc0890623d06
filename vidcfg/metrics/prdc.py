"""Precision, recall, density and coverage of generated features against real ones."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vidcfg.metrics.frechet import check_features


@dataclass(frozen=True)
class Prdc:
    """Shares in [0, 1], density in [0, M]. Equal distributions do not give precision and recall of
    1."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(
    real: Float[np.ndarray, "N D"],
    generated: Float[np.ndarray, "M _"],
    *,
    k: int = 5,
    ties: str = "strict",
) -> Prdc:
    """k-nearest-neighbour manifolds; r_k is the distance to the k-th neighbour without the point
    itself.

        precision = mean_j [some i: d(x_i, y_j) < r_k(x_i)]      recall: the same with sets swapped
        density = 1 / (k M) sum_j #{i: d(x_i, y_j) < r_k(x_i)}
        coverage = mean_i [min_j d(x_i, y_j) < r_k(x_i)]

    x is real (N), y generated (M). `ties="inclusive"` uses <= instead.

    Raises:
        ValueError: if a set has k rows or fewer, or the features differ in size.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797.
    """
    if ties not in ("strict", "inclusive"):
        raise ValueError(f"ties is {ties!r}, allowed are 'strict' and 'inclusive'.")
    real, generated = check_features(real), check_features(generated)
    if real.shape[1] != generated.shape[1]:
        raise ValueError("real and generated features differ in size; both need the same net.")
    if min(len(real), len(generated)) <= k:
        raise ValueError(
            f"k is {k}, and the sets have {len(real)} and {len(generated)} clips; "
            "more than k are needed in both."
        )
    real_radius, generated_radius = _radii(real, k), _radii(generated, k)
    inside = np.less if ties == "strict" else np.less_equal
    num_real, num_generated = len(real), len(generated)
    balls_around_generated = np.zeros(num_generated, dtype=np.int64)
    is_recalled, is_covered = np.zeros(num_real, dtype=bool), np.zeros(num_real, dtype=bool)
    for rows, distance in _distances(real, generated):
        in_real = inside(distance, real_radius[rows, None])
        balls_around_generated += in_real.sum(axis=0)
        is_recalled[rows] = inside(distance, generated_radius[None]).any(axis=1)
        is_covered[rows] = inside(distance.min(axis=1), real_radius[rows])
    return Prdc(
        precision=float(np.mean(balls_around_generated > 0)),
        recall=float(np.mean(is_recalled)),
        density=float(balls_around_generated.sum() / (k * num_generated)),
        coverage=float(np.mean(is_covered)),
    )


def coverage_of_equal_sets(num_real: int, num_generated: int, k: int) -> float:
    """Expected coverage when both sets come from one distribution.

    A real point is covered unless its k nearest among all others are real:
        1 - prod_{i<k} (N - 1 - i) / (N + M - 1 - i)
    """
    i = np.arange(k)
    return float(1 - np.prod((num_real - 1 - i) / (num_real + num_generated - 1 - i)))


def _radii(features: np.ndarray, k: int) -> np.ndarray:
    """Distance of every row to its k-th neighbour; the row itself is the 0-th."""
    blocks = [np.partition(d, k, axis=1)[:, k] for _, d in _distances(features, features)]
    return np.concatenate(blocks)


def _distances(x: np.ndarray, y: np.ndarray, *, block: int = 512):
    """Blocks of rows of the distance matrix: memory stays at block x M."""
    from scipy.spatial.distance import cdist

    for start in range(0, len(x), block):
        rows = slice(start, start + block)
        yield rows, cdist(x[rows], y)
