"""Sweeps that are broken at random times lose nothing, and the script that breaks them sees it."""

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def chaos(tmp_path_factory):
    import chaos
    import cv2
    import torch

    # Threads do not survive a fork.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    said = []
    made = chaos.Chaos(tmp_path_factory.mktemp("chaos"), said.append)
    made.said = said
    return made


@pytest.mark.parametrize(
    ("num_here", "num_ray"), [(10, 0), pytest.param(10, 3, marks=pytest.mark.slow)]
)
def test_whatever_goes_wrong_nothing_is_lost_made_twice_or_left(chaos, num_here, num_ray):
    import chaos as script

    for place, count in (("here", num_here), ("ray", num_ray)):
        kinds = script.RAY if place == "ray" else script.HERE
        for number in range(count):
            kind = kinds[-1 - number % len(kinds)]
            found = chaos.round(kind, f"{count}-{place}-{number}", on_ray=place == "ray")
            assert found["rounds"] == 1
    assert chaos.said == []


def test_what_is_lost_made_twice_or_left_is_seen(chaos, monkeypatch):
    """Two units vanish behind the sweep's back and are made again; a file is left half written."""
    import chaos as script

    def spoil(kind, driver, chance):
        assert driver.wait(script.ENOUGH)
        store = script.Store(str(driver.log.parent / "store"))
        for key in sorted(script.state(store))[:2]:
            store.fs.rm(store.path(store.unit(key)), recursive=True)
        (driver.log.parent / "store" / ".tmp-of-nobody").touch()
        return True

    monkeypatch.setattr(script, "strike", spoil)
    before = len(chaos.said)
    found = chaos.round("spoiled", "spoiled", on_ray=False)
    assert found["twice"] == 2
    assert found["leftovers"] == 1
    assert found["differ"] == found["hung"] == found["stay"] == found["unfinished"] == 0
    assert chaos.said[before].startswith("spoiled: {'twice': 2, 'leftovers': 1}")
    del chaos.said[before:]
    assert "| spoiled | 1 | 1 | 0 | 2 |" in script.table({"spoiled": found})
