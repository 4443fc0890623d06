"""Closed forms of the Frechet distance, and agreement with torchmetrics and torch-fidelity."""

from functools import cached_property

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from set_oracles import Statistics, frechet_distance, with_moments

from vidcfg.metrics.distances import Moments, frechet, frechet_infinity


def gaussian(mean, covariance):
    return Statistics(np.asarray(mean, float), np.asarray(covariance, float))


def of_sets(a, b):
    """The package's distance of two sets with exactly those moments."""
    return frechet(*(with_moments(s.mean, s.covariance) for s in (a, b)))


def draw(seed, n, d, *, shift=0.0):
    return np.random.default_rng(seed).standard_normal((n, d)) + shift


NON_COMMUTING = ([[2, 1], [1, 2]], [[3, -1], [-1, 1]])


def test_isotropic_gaussians():
    d = 400
    a, b = gaussian(np.zeros(d), np.eye(d)), gaussian(np.full(d, 0.5), 4 * np.eye(d))
    assert frechet_distance(a, b) == pytest.approx(500, rel=1e-12)
    assert of_sets(a, b) == pytest.approx(500, rel=1e-12)


def test_diagonal_gaussians():
    a, b = gaussian([1, 2, 3], np.diag([1, 4, 9])), gaussian([0, 0, 0], np.diag([16, 1, 4]))
    assert frechet_distance(a, b) == pytest.approx(25, rel=1e-12)
    assert of_sets(a, b) == pytest.approx(25, rel=1e-12)


def test_non_commuting_covariances():
    a, b = (gaussian([0, 0], covariance) for covariance in NON_COMMUTING)
    expected = 8 - 2 * np.sqrt(6 + 2 * np.sqrt(6))
    assert expected == pytest.approx(1.39727950445686, abs=1e-13)
    # Two eigenproblems and a sum of square roots in float64.
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-12)
    assert frechet_distance(b, a) == pytest.approx(expected, abs=1e-12)
    assert of_sets(a, b) == pytest.approx(expected, abs=1e-12)


def test_pure_shift_is_its_squared_length():
    x = np.array([[0, 0, 0], [20, 20, 20], [200, 200, 200], [2000, 2000, 2000]], dtype=float)
    assert frechet(x, x + [1, 2, 3]) == pytest.approx(14, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(60, 7), (9, 40)])
def test_set_against_itself_is_zero(n, d):
    x = draw(0, n, d)
    assert abs(frechet(x, x)) < 1e-8 * np.trace(np.cov(x.T))


def test_distance_is_symmetric_scales_with_the_square_and_ignores_rotation():
    x, y = draw(0, 80, 6), draw(1, 70, 6, shift=0.3) * [1, 2, 1, 1, 0.5, 1]
    rotation, _ = np.linalg.qr(draw(2, 6, 6))
    value = frechet(x, y)
    assert frechet(y, x) == pytest.approx(value, rel=1e-9)
    assert frechet(3 * x, 3 * y) == pytest.approx(9 * value, rel=1e-9)
    assert frechet(x @ rotation, y @ rotation) == pytest.approx(value, rel=1e-9)


def test_fewer_clips_than_features():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 400)), rng.standard_normal((64, 400))
    assert frechet(x, y) == pytest.approx(550.16602, abs=2e-5)
    # The root of a covariance takes square roots of eigenvalues that are zero up to rounding.
    full = frechet_distance(Statistics.of(x), Statistics.of(y))
    assert full == pytest.approx(frechet(x, y), abs=1e-4)


@pytest.mark.parametrize("is_biased", [False, True])
def test_features_padded_by_zeros_have_the_same_distance(is_biased):
    x, y = draw(0, 12, 11), draw(1, 14, 11, shift=1.0)
    padded = frechet(np.pad(x, ((0, 0), (0, 5))), np.pad(y, ((0, 0), (0, 5))), is_biased=is_biased)
    assert frechet(x, y, is_biased=is_biased) == pytest.approx(padded, rel=1e-7)


def test_biased_covariance_divides_by_n():
    x, y = draw(0, 30, 4), 2 * draw(1, 20, 4)
    values = []
    for ddof in (0, 1):
        a, b = np.cov(x.T, ddof=ddof), np.cov(y.T, ddof=ddof)
        values.append(frechet_distance(gaussian(x.mean(0), a), gaussian(y.mean(0), b)))
    assert frechet(x, y, is_biased=True) == pytest.approx(values[0], rel=1e-9)
    assert frechet(x, y) == pytest.approx(values[1], rel=1e-9)


@pytest.mark.parametrize(("n", "expected"), [(1024, 79.1), (2048, 39.4), (4096, 19.7)])
def test_bias_of_equal_distributions_follows_its_law(n, expected):
    d = 400
    law = d * (d + 1) / (2 * n) + 2 * d / n
    value = frechet(draw(0, n, d), draw(1, n, d))
    assert value == pytest.approx(law, rel=0.05)
    assert value == pytest.approx(expected, rel=0.02)


def test_extrapolation_removes_most_of_the_bias():
    x, y = draw(0, 1024, 64), draw(1, 1024, 64, shift=0.3)
    raw, at_infinity = frechet(x, y), frechet_infinity(x, y)
    true, bias = 64 * 0.3**2, 64 * 65 / 2048 + 128 / 1024
    # The squared distance of two means of 1024 draws has a standard deviation of 0.21 here.
    assert raw == pytest.approx(true + bias, abs=0.65)
    assert at_infinity.value == pytest.approx(true, abs=0.65)
    assert raw - at_infinity.value == pytest.approx(bias, abs=0.4)
    assert 0 < at_infinity.standard_error < 0.5


def test_extrapolation_does_not_depend_on_the_order_of_clips():
    x, y = draw(0, 40, 5), draw(1, 50, 5)
    shuffled = np.random.default_rng(3).permutation(50)
    assert frechet_infinity(x[::-1], y[shuffled]) == frechet_infinity(x, y)


@given(st.permutations(range(9)))
@settings(max_examples=20, deadline=None)
def test_order_of_clips_does_not_matter(order):
    x, y = draw(0, 9, 4), draw(1, 9, 4)
    assert frechet(x[list(order)], y) == pytest.approx(frechet(x, y), rel=1e-10)


@pytest.mark.parametrize("peer", ["torchmetrics", "torch_fidelity"])
def test_peers_find_the_same_distance(peer):
    x, y = draw(0, 300, 12), 1.5 * draw(1, 200, 12, shift=0.2)
    first, second = (Statistics.of(f) for f in (x, y))
    if peer == "torchmetrics":
        import torch
        from torchmetrics.image.fid import _compute_fid

        tensors = (torch.from_numpy(a) for s in (first, second) for a in (s.mean, s.covariance))
        theirs = float(_compute_fid(*tensors))
    else:
        from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

        stats = [{"mu": s.mean, "sigma": s.covariance} for s in (first, second)]
        theirs = fid_statistics_to_metric(*stats, verbose=False)[KEY_METRIC_FID]
    assert frechet(x, y) == pytest.approx(theirs, rel=1e-8)


@pytest.mark.parametrize(("n", "d", "dead"), [(60, 7, 0), (60, 7, 2), (9, 40, 0)])
def test_a_kept_reference_gives_the_same_distance_and_is_taken_once(n, d, dead, monkeypatch):
    x, y = draw(0, n, d, shift=0.3), draw(1, n + 5, d)
    x[:, :dead], y[:, :dead] = 0, 0
    centre, taken = Moments.centred.func, []
    counted = cached_property(lambda self: taken.append(self) or centre(self))
    counted.__set_name__(Moments, "centred")
    monkeypatch.setattr(Moments, "centred", counted)
    kept = Moments(y)
    expected = frechet_distance(Statistics.of(x), Statistics.of(y))
    # Two eigenproblems, whose roots lose digits where there are fewer clips than dimensions.
    for _ in range(3):
        assert frechet(x, kept) == pytest.approx(expected, rel=1e-9 if n > d else 1e-5)
    assert taken.count(kept) == 1


def test_wrong_features_are_named():
    with pytest.raises(ValueError, match="two clips or more"):
        frechet(draw(0, 1, 4), draw(1, 5, 4))
    with pytest.raises(ValueError, match="4 and 5 dimensions"):
        frechet(draw(0, 6, 4), draw(1, 6, 5))
    with pytest.raises(ValueError, match="NaN"):
        frechet(np.full((3, 2), np.nan), draw(0, 3, 2))
    with pytest.raises(ValueError, match="16 are needed"):
        frechet_infinity(draw(0, 15, 2), draw(1, 30, 2))
    with pytest.raises(ValueError, match="39 clips are too few to extrapolate, 40 are needed"):
        frechet_infinity(draw(0, 39, 20), draw(1, 90, 20))
