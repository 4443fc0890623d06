import numpy as np
import pytest
from set_oracles import biased_kernel_distance

from vidcfg.metrics.distances import kernel_distance, mind, polynomial_kernel

A = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=float)
B = np.array([[7, 6, 5], [4, 3, 2], [1, 1, 8], [0, 2, 5]], dtype=float)


def draw(seed, n, d, *, shift=0.0):
    return np.random.default_rng(seed).standard_normal((n, d)) + shift


def test_kernel_of_two_small_sets():
    # Over all pairs, as JEDi has it: 23088.083333 for degree 3, gamma 1 / D and offset 1.
    assert biased_kernel_distance(A, B) == pytest.approx(23088.083333, rel=1e-9)


def test_unbiased_distance_is_zero_on_average_and_may_be_negative():
    values = [kernel_distance(draw(i, 32, 8), draw(1000 + i, 32, 8)).value for i in range(300)]
    standard_error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * standard_error
    assert min(values) < 0


def test_biased_distance_of_equal_distributions_is_not_zero_on_average():
    values = [biased_kernel_distance(draw(i, 32, 8), draw(1000 + i, 32, 8)) for i in range(100)]
    assert np.mean(values) > 10 * np.std(values) / np.sqrt(len(values))


def test_jackknife_error_is_that_of_leaving_each_clip_out():
    x, y = draw(0, 9, 4), draw(1, 7, 4, shift=0.5)
    variance = 0.0
    for side in (0, 1):
        sets = (x, y)
        drops = []
        for i in range(len(sets[side])):
            kept = [np.delete(s, i, axis=0) if j == side else s for j, s in enumerate(sets)]
            drops.append(kernel_distance(*kept).value)
        drops = np.array(drops)
        variance += (len(drops) - 1) / len(drops) * np.sum((drops - drops.mean()) ** 2)
    assert kernel_distance(x, y).standard_error == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_standard_error_matches_the_spread_over_seeds():
    found = [kernel_distance(draw(i, 64, 6), draw(500 + i, 64, 6, shift=0.5)) for i in range(60)]
    spread = np.std([f.value for f in found])
    # 60 seeds know a standard deviation to about 9 %.
    assert np.mean([f.standard_error for f in found]) == pytest.approx(spread, rel=0.3)


def test_order_of_clips_does_not_matter():
    x, y = draw(0, 20, 5), draw(1, 30, 5)
    assert kernel_distance(x[::-1], y).value == pytest.approx(kernel_distance(x, y).value)
    assert mind(x[::-1], y) == mind(x, y)


def test_torch_fidelity_and_torchmetrics_find_the_same_distance():
    import torch
    from torch_fidelity.metric_kid import mmd2
    from torchmetrics.image.kid import poly_mmd

    x, y = draw(0, 40, 6), draw(1, 40, 6, shift=0.4)
    kernels = (polynomial_kernel(a, b) for a, b in ((x, x), (x, y), (y, y)))
    value = kernel_distance(x, y).value
    assert value == pytest.approx(mmd2(*kernels), rel=1e-10)
    theirs = poly_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert value == pytest.approx(float(theirs), rel=1e-10)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_sliced_distance_of_a_shift_is_three_d_times_its_square(shift):
    x, y = draw(0, 4000, 64), draw(1, 4000, 64, shift=shift)
    assert mind(x, y, num_directions=500) == pytest.approx(3 * 64 * shift**2, rel=0.1)


def test_sliced_distance_of_a_set_to_itself_is_exactly_zero():
    x = draw(0, 50, 8)
    assert mind(x, x.copy()) == 0


def test_sliced_distance_takes_sets_of_different_size():
    x, y = draw(0, 3000, 4), draw(1, 1000, 4, shift=1.0)
    assert mind(x, y) == pytest.approx(12, rel=0.15)
    assert mind(y, x) == pytest.approx(mind(x, y))


def test_features_of_different_nets_are_refused():
    with pytest.raises(ValueError, match="same net"):
        kernel_distance(draw(0, 5, 4), draw(0, 5, 3))
