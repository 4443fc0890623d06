"""The Frechet distance of two sets of features, against `sqrtm` of scipy as cd-fvd and others take
it: both covariances, then the trace of the root of their product.
"""

from collections.abc import Iterator

import numpy as np
from harness import Row
from scipy.linalg import sqrtm

from vidcfg.metrics.distances import Moments, frechet


def by_root(x: np.ndarray, y: np.ndarray) -> float:
    """|mu_x - mu_y|^2 + Tr (A + B - 2 (A B)^1/2)."""
    shift = x.mean(axis=0) - y.mean(axis=0)
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(sqrtm(first @ second))
    return float(shift @ shift + np.trace(first + second - 2 * root))


def features(count: int, width: int, seed: int) -> np.ndarray:
    """Rows whose coordinates are mixed, with a spectrum that falls as that of real features."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((width, width)) / np.sqrt(width)
    return rng.standard_normal((count, width)) / np.sqrt(1 + np.arange(width)) @ mix + seed


def rows() -> Iterator[Row]:
    for width, count, goal in ((400, 256, 10), (768, 256, 50), (1408, 256, 200)):
        yield row(width, count, goal)
    for width, count in ((400, 2048), (768, 2048)):
        yield row(width, count, 3, is_kept=True)


def row(width: int, count: int, goal: float, *, is_kept: bool = False) -> Row:
    x, y = features(count, width, 0), features(count, width, 1)
    known = Moments(y) if is_kept else y

    def check() -> str:
        ours, peer = frechet(x, known), by_root(x, y)
        error = abs(ours - peer) / peer
        assert error <= 1e-9, error
        return f"relative {error:.0e}"

    name = f"d = {width}, n = {count}" + ", reference kept" * is_kept
    return Row(name, lambda: by_root(x, y), lambda: frechet(x, known), check, goal=goal, rounds=5)
