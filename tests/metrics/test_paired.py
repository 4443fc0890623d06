"""Paired statistics against scipy, closed forms and each other."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from vidcfg.metrics.paired import (
    bootstrap_indices,
    cluster_means,
    holm,
    log_ratios,
    needed_clips,
    sign_flip_p,
    skewness_corrected_p,
    smallest_p,
)


def sample(num, *, mean=0.3, seed=0):
    return np.random.default_rng(seed).normal(mean, 1, num)


def test_log_ratio_of_equal_values_is_zero_and_floor_softens_small_ones():
    ratios = log_ratios([0.02, 0.0, 0.1], [0.01, 0.0, 0.1], floor=0.001)
    assert ratios == pytest.approx([math.log(21 / 11), 0, 0])


@pytest.mark.parametrize(
    ("new", "base", "floor"),
    [
        ([1.0], [1.0, 2.0], 0.1),
        ([math.nan], [1.0], 0.1),
        ([-1.0], [1.0], 0.1),
        ([1.0], [1.0], 0.0),
    ],
)
def test_log_ratios_refuse_what_has_none(new, base, floor):
    with pytest.raises(ValueError):
        log_ratios(new, base, floor=floor)


def test_every_cluster_counts_once():
    means = cluster_means([1, 3, 10, 20, 30], ["b", "b", "a", "a", "a"])
    assert means.tolist() == [20, 2]


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("num", [5, 8, 11])
def test_exact_sign_flip_equals_scipy(num, alternative):
    values = sample(num)
    found = sign_flip_p(values, range(num), alternative=alternative)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative=alternative
    )
    assert found == pytest.approx(expected.pvalue, abs=1e-12)


def test_sign_flip_of_all_positive_is_one_half_to_the_number_of_clusters():
    assert sign_flip_p([1, 2, 3, 4, 5, 6], [0, 0, 1, 1, 2, 2]) == 0.5**3 == smallest_p(3)
    assert sign_flip_p(np.zeros(7), range(7)) == 1


def test_sign_flip_at_the_limit_of_exactness_agrees_with_random_patterns():
    values = sample(20, mean=0.4)
    exact = sign_flip_p(values, range(20))
    random = sign_flip_p(np.append(values, 0.0), range(21))
    # A cluster of 0 changes no sum. Standard error of 20000 patterns: sqrt(p / 20000).
    assert random == pytest.approx(exact, abs=5 * math.sqrt(exact / 20_000))


def test_sign_flip_is_repeatable_and_ignores_order():
    values, clusters = sample(60), np.repeat(np.arange(30), 2)
    order = np.random.default_rng(1).permutation(60)
    first = sign_flip_p(values, clusters)
    assert first == sign_flip_p(values[order], clusters[order])
    assert 1 / 20_000 <= first < 1


def test_sign_flip_rejects_at_its_level_without_a_change():
    rng = np.random.default_rng(0)
    p = np.array([sign_flip_p(rng.normal(size=12), range(12)) for _ in range(2000)])
    # 2000 trials at 5 %: standard error 0.5 %.
    assert abs((p <= 0.05).mean() - 0.05) < 0.015


def test_skewness_corrected_p_equals_halls_formula_and_students_for_symmetric_values():
    even = np.array([-0.3, 0.1, 0.5]) + 0.07
    expected = stats.ttest_1samp(even, 0, alternative="greater").pvalue
    assert skewness_corrected_p(even, range(3)) == pytest.approx(expected, rel=1e-9)
    # Two clips a prompt; means 1, 2, 6: mean 3, sd sqrt(7), third moment 6, written out by hand.
    values, clusters = [0, 2, 1, 3, 5, 7], list("aabbcc")
    size, skew = 3 / 7**0.5, 6 / 7**1.5
    t = 3**0.5 * (size + skew * size**2 / 3 + skew**2 * size**3 / 27 + skew / 18)
    assert skewness_corrected_p(values, clusters) == pytest.approx(stats.t.sf(t, 2), rel=1e-9)
    assert skewness_corrected_p([0.1] * 4, range(4)) == 0
    assert skewness_corrected_p([-0.1] * 4, range(4)) == 1
    assert skewness_corrected_p([0.3, 0.2], ["a", "a"]) == 1


def test_skewness_corrected_p_errs_less_on_left_skew_than_students():
    values = 1 - np.random.default_rng(4).exponential(size=(2000, 12))
    corrected = np.mean([skewness_corrected_p(row, range(12)) <= 0.03 for row in values])
    student = np.mean(stats.ttest_1samp(values, 0, axis=1, alternative="greater").pvalue <= 0.03)
    # 6 % and 9 %, standard errors of half a point.
    assert corrected < 0.075 < student


def test_cells_with_the_same_prompts_are_resampled_alike():
    first = bootstrap_indices(["x", "y", "z", "y"], resamples=50)
    second = bootstrap_indices(["z", "x", "y"], resamples=50)
    assert first.shape == (50, 3)
    assert (first == second).all()
    assert set(np.unique(first)) == {0, 1, 2}


def test_holm_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]).tolist() == [1, 1]


def test_weighted_holm_gives_each_its_share_of_the_level():
    adjusted = holm([0.04, 0.9, 0.9], weights=[8, 1, 1])
    assert adjusted[0] == pytest.approx(0.05)
    # After the first is rejected the others share the whole level.
    assert holm([0.01, 0.02, 0.9], weights=[8, 1, 1])[1] == pytest.approx(0.04)
    assert holm([0.01, 0.2, 0.03], weights=[2, 2, 2]) == pytest.approx(holm([0.01, 0.2, 0.03]))


def test_weighted_holm_equals_the_closed_test_of_all_subsets():
    """Adjusted p of i: the largest, over sets with i, of Bonferroni's by weight in that set."""
    random = np.random.default_rng(4)
    for _ in range(50):
        p, w = random.random(4) ** 2, random.choice([0.5, 1.0, 3.0, 9.0], 4)
        sets = [list(s) for n in range(1, 5) for s in itertools.combinations(range(4), n)]
        of_set = [min((p[s] / w[s]).min() * w[s].sum(), 1.0) for s in sets]
        want = [max(q for q, s in zip(of_set, sets) if i in s) for i in range(4)]
        np.testing.assert_allclose(holm(p, weights=w), want, rtol=1e-12)


@pytest.mark.parametrize("wrong", [[0.5, 1.2], [math.nan]])
def test_holm_refuses_what_is_no_probability(wrong):
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm(wrong)


def test_needed_clips_are_found_with_the_stated_power():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 4000)
    needed = needed_clips(values / values.std(ddof=1), range(4000), effect=0.65)
    trials = rng.normal(0.65, 1, (2000, needed))
    found = np.mean([sign_flip_p(trial, range(needed)) <= 0.05 for trial in trials])
    # The formula is that of a t-test; 2000 trials at 80 % have a standard error of 0.9 %.
    assert found == pytest.approx(0.8, abs=0.03)


def test_needed_clips_find_the_effect_and_fewer_do_not():
    values, clusters = sample(24), np.repeat(np.arange(12), 2)
    needed = needed_clips(values, clusters, effect=0.2)
    assert needed % 2 == 0
    sd = np.std(np.reshape(values, (12, 2)).mean(axis=1), ddof=1)
    at, below = (
        (stats.t.ppf(0.95, n - 1) + stats.t.ppf(0.8, n - 1)) * sd / math.sqrt(n)
        for n in (needed // 2, needed // 2 - 1)
    )
    assert at <= 0.2 < below
    assert needed_clips([0.0] * 6, range(6), effect=0.1) == 5
    assert needed_clips(values, clusters, effect=1e-9) is None
    assert needed_clips([1.0], [0], effect=0.1) is None
