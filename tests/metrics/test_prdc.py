import numpy as np
import pytest
from set_oracles import coverage_of_equal_sets

from vidcfg.metrics.distances import Prdc, prdc

REAL = np.arange(10.0)[:, None]
FAKE = np.array([0.5, 4.5, 20, 21, 22, 23])[:, None]


def draw(seed, n, d, *, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, Prdc(1 / 3, 0.9, 2 / 3, 0.4)), (2, Prdc(1 / 3, 1.0, 1 / 3, 0.4))],
)
def test_points_on_a_line(k, expected):
    # Ties of whole and half numbers are exact in floating point.
    found = prdc(REAL, FAKE, k=k)
    assert found.precision == pytest.approx(expected.precision)
    assert found.recall == pytest.approx(expected.recall)
    assert found.coverage == pytest.approx(expected.coverage)
    assert found.density == pytest.approx(expected.density)


def test_set_against_itself_is_perfect():
    points = draw(0, 30, 3)
    assert prdc(points, points, k=3) == Prdc(1.0, 1.0, 1.0, 1.0)


def test_a_tie_is_outside():
    # Counting ties as inside would give a precision of 2 / 3.
    real, fake = np.array([[0.0], [1], [3]]), np.array([[-1.0], [4], [10]])
    found = prdc(real, fake, k=1)
    assert found.precision == pytest.approx(1 / 3)
    assert found.recall == 1


def test_mode_collapse_is_precise_and_recalls_little():
    found = prdc(draw(0, 200, 16, scale=3.0), draw(1, 200, 16, scale=0.1), k=3)
    assert found.precision > 0.8
    assert found.recall < 0.3


def test_coverage_of_equal_distributions_follows_its_law():
    n = 400
    values = [prdc(draw(i, n, 8), draw(100 + i, n, 8)).coverage for i in range(4)]
    law = coverage_of_equal_sets(n, n, 5)
    assert law == pytest.approx(1 - 2**-5, abs=2e-3)
    # Four sets of 400: a standard error of about 0.005.
    assert np.mean(values) == pytest.approx(law, abs=0.02)


def test_blocks_of_rows_do_not_show():
    # More than one block of 512 rows, against the whole matrix.
    real, fake = draw(0, 700, 3), draw(1, 600, 3, scale=1.2)
    distance = np.linalg.norm(real[:, None] - fake[None], axis=-1)
    radius = np.sort(np.linalg.norm(real[:, None] - real[None], axis=-1), axis=1)[:, 5]
    precision = (distance < radius[:, None]).any(axis=0).mean()
    assert prdc(real, fake).precision == precision


def test_peers_find_the_same_values():
    import torch
    from prdc import compute_prdc
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    real, fake = draw(0, 120, 6), draw(1, 90, 6, scale=1.3)
    ours, theirs = prdc(real, fake, k=5), compute_prdc(real, fake, nearest_k=5)
    for name, value in theirs.items():
        assert getattr(ours, name) == pytest.approx(value), name
    precision, recall = calculate_precision_recall_full(
        torch.from_numpy(fake), torch.from_numpy(real), neighborhood=3
    )
    # They count ties as inside, which these draws do not have. Their shares are float32.
    ours = prdc(real, fake, k=3)
    assert (ours.precision, ours.recall) == pytest.approx((precision, recall), abs=1e-6)


def test_sets_that_are_too_small_are_named():
    with pytest.raises(ValueError, match="5 and 9 clips"):
        prdc(draw(0, 5, 2), draw(1, 9, 2))
