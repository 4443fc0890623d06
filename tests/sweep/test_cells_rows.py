"""Distances of cells to real clips, whose own features are made once."""

import numpy as np
import pytest

from vidcfg.evaluate import reference
from vidcfg.evaluate.settings import Settings
from vidcfg.metrics.features.base import FeatureNet
from vidcfg.metrics.record import Backend
from vidcfg.sweep.run import complete_pairs


class Net(FeatureNet):
    """Features are the mean colour of a clip and its spread."""

    name, protocol, backend = "mini", "plain", Backend("plain")
    is_biased_covariance = is_published = False
    num_frames = min_frames = 3
    calls = 0

    def prepare(self, frames):
        return frames

    def features(self, clips):
        Net.calls += len(clips)
        flat = clips.reshape(len(clips), -1)
        return np.stack([flat.mean(1), flat.std(1), flat[:, 0]], axis=1).astype(np.float32)


@pytest.fixture
def real(monkeypatch):
    """40 real clips and 40 others, for any shapes."""
    random = np.random.default_rng(0)
    clips = random.random((80, 3, 3, 4, 5), dtype=np.float32)
    halves = dict(zip(reference._SEEDS, (clips[:40], clips[40:])))
    monkeypatch.setattr(reference, "_drawn", lambda net, seed, *rest: iter(halves[seed]))
    monkeypatch.setattr(reference, "cached_net", lambda name, settings: Net())
    Net.calls = 0


def distances_of(settings):
    return reference.Distances(settings, no_reference="none", no_features="none")


def test_the_reference_goes_through_the_net_once_for_all_cells(real):
    random = np.random.default_rng(1)
    distances = distances_of(Settings(families=("flicker", "mini"), reference="mini"))
    # Cells of a sweep that goes on have different numbers of videos.
    for cell in range(5):
        names = [f"{i:02}" for i in range(20 - cell)]
        shapes = dict.fromkeys(names, (3, 4, 5))
        features = {name: random.random(3, dtype=np.float32) + cell for name in names}
        found = distances.of({"mini": features}, shapes, {})
        own = np.stack([features[key] for key in sorted(features)])
        known = reference.real_features("mini", Net(), shapes=[])
        expected = reference.distances(Net(), own, known)
        assert [(r.name, r.value) for r in found] == [(r.name, r.value) for r in expected]
    # Once by the sweep, and once for each expected value above.
    assert Net.calls == 80 * 6


def test_without_a_reference_there_are_no_distances_by_the_mini_net():
    distances = distances_of(Settings(families=("flicker", "mini")))
    assert distances.of({"mini": {"a": np.zeros(3)}}, {"a": (3, 4, 5)}, {}) == []


def test_cells_are_compared_on_the_prompts_and_seeds_that_all_have(plan):
    made = plan("seeds=7-9")
    at = {(unit.cell, unit.prompt, unit.seed): unit.key for unit in made.grid_units}
    first, second, *_ = (cell.id for cell in made.cells)
    lost = [(first, 0, 7), (second, 1, 8), (second, 1, 9), (first, 1, 9)]
    done = set(made.keys) - {at[place] for place in lost}
    assert complete_pairs(made, done) == {(0, 8), (0, 9), (1, 7)}
    assert complete_pairs(made, {at[first, 0, 7]}) == set()
