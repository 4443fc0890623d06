"""Distances between feature sets by other ways than the package's own."""

from dataclasses import dataclass

import numpy as np

from vidcfg.metrics.distances import polynomial_kernel


@dataclass(frozen=True, eq=False)
class Statistics:
    """Count, mean [D] and covariance [D, D], divided by n - 1, of a feature set."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features):
        return cls(features.mean(axis=0), np.cov(features.T))


def frechet_distance(a, b):
    """|mu_a - mu_b|^2 + Tr A + Tr B - 2 Tr (A^1/2 B A^1/2)^1/2 from symmetric eigenproblems."""
    cross = np.linalg.svd(_root(a.covariance) @ _root(b.covariance).T, compute_uv=False).sum()
    shift = a.mean - b.mean
    return float(shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


def _root(covariance):
    """A matrix R with R^T R = covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T


def with_moments(mean, covariance):
    """A feature set [2 D + 2, D] with exactly that mean and unbiased covariance."""
    mean, root = np.asarray(mean, float), _root(np.asarray(covariance, float))
    num = len(mean)
    # Plus and minus each axis: rows of mean 0 and scatter 2 I.
    axes = np.concatenate([np.eye(num), -np.eye(num)])
    return mean + axes @ root * np.sqrt((2 * num - 1) / 2)


def biased_kernel_distance(x, y):
    """The kernel distance over all pairs, a row with itself included."""
    kxx, kyy, kxy = (polynomial_kernel(a, b) for a, b in ((x, x), (y, y), (x, y)))
    return float(kxx.mean() + kyy.mean() - 2 * kxy.mean())


def coverage_of_equal_sets(num_real, num_generated, k):
    """Expected coverage when both sets come from one distribution.

    A real point is covered unless its k nearest among all others are real.
    """
    i = np.arange(k)
    return float(1 - np.prod((num_real - 1 - i) / (num_real + num_generated - 1 - i)))
