import numpy as np
import pytest

from vidcfg.metrics.distances import frechet, kernel_distance, prdc
from vidcfg.metrics.distribution import Sets, distribution_records
from vidcfg.metrics.features.base import FeatureNet
from vidcfg.metrics.record import Backend

BACKEND = Backend("net", "3" * 64)


def draw(seed, n, d=6, *, shift=0.0):
    return np.random.default_rng(seed).standard_normal((n, d)) + shift


class Net(FeatureNet):
    backend = BACKEND
    protocol = "clip=first"

    def __init__(self, name, is_biased, is_published):
        self.name, self.is_biased_covariance, self.is_published = name, is_biased, is_published

    def prepare(self, frames):
        return frames


def records(sets, *, net="mini", is_biased=False, is_published=False):
    made = distribution_records(sets, Net(net, is_biased, is_published), protocol="n=2")
    return {record.name: record for record in made}


def test_every_distance_is_that_of_its_function():
    sets = Sets(draw(0, 40, shift=0.5), draw(1, 50), draw(2, 40))
    found = records(sets)
    assert found["fd[mini]"].value == pytest.approx(frechet(sets.real, sets.generated))
    kernel = kernel_distance(sets.generated, sets.real)
    assert found["kd[mini]"].value == pytest.approx(kernel.value)
    low, high = found["kd[mini]"].interval
    assert high - low == pytest.approx(2 * 1.96 * kernel.standard_error)
    shares = prdc(sets.real, sets.generated)
    for name in ("precision", "recall", "density", "coverage"):
        assert found[f"{name}[mini]"].value == getattr(shares, name)
    assert all(r.n == 40 and r.extra["n_real"] == 50 for r in found.values())
    assert all(r.backend == BACKEND and "clip=first;n=2" in r.protocol for r in found.values())


def test_baseline_compares_real_clips_with_other_real_clips():
    sets = Sets(draw(0, 40, shift=3.0), draw(1, 50), draw(2, 40))
    extra = records(sets)["fd[mini]"].extra
    assert extra["real_against_real"] == pytest.approx(frechet(sets.real, sets.other))
    assert extra["real_against_real_n"] == [40, 50]


def test_baseline_without_other_clips_splits_the_real_ones():
    extra = records(Sets(draw(0, 40), draw(1, 51)))["fd[mini]"].extra
    assert extra["real_against_real_n"] == [26, 25]
    shuffled = draw(1, 51)[np.random.default_rng(0).permutation(51)]
    again = records(Sets(draw(0, 40), shuffled))["fd[mini]"].extra
    assert again["real_against_real"] == pytest.approx(extra["real_against_real"])


def test_small_sets_are_never_comparable_to_literature_and_say_why():
    found = records(Sets(draw(0, 40), draw(1, 50)), is_published=True)
    assert not any(r.comparable_to_literature for r in found.values())
    assert "40 clips; 2048 on each side" in found["fd[mini]"].extra["note"]
    assert "mostly noise" in found["recall[mini]"].extra["note"]


@pytest.mark.parametrize("is_published", [True, False])
def test_large_sets_of_a_published_protocol_are_comparable(is_published, monkeypatch):
    monkeypatch.setattr("vidcfg.metrics.distribution.LITERATURE_N", 30)
    sets = Sets(draw(0, 30, 2), draw(1, 30, 2))
    found = records(sets, net="i3d-k400", is_published=is_published)
    assert found["fvd[i3d-k400]"].comparable_to_literature is is_published


def test_biased_covariance_is_in_value_and_protocol():
    sets = Sets(draw(0, 20), draw(1, 20, shift=1.0))
    plain, biased = (records(sets, is_biased=b)["fd[mini]"] for b in (False, True))
    assert biased.value == pytest.approx(frechet(sets.real, sets.generated, is_biased=True))
    assert plain.protocol != biased.protocol


def test_sets_too_small_for_a_measure_are_null_with_the_reason():
    found = records(Sets(draw(0, 4), draw(1, 9)))
    assert found["fd[mini]"].value is not None
    assert "16 are needed" in found["fd_infinity[mini]"].skipped_reason
    assert "more than k" in found["recall[mini]"].skipped_reason


def test_only_i3d_is_called_fvd():
    sets = Sets(draw(0, 8), draw(1, 8))
    assert "fvd[i3d-k400]" in records(sets, net="i3d-k400")
    assert not [name for name in records(sets, net="r3d18-k400") if name.startswith("fvd")]
