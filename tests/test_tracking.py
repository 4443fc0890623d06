"""Trackers of runs, each in its own words and all told the same."""

import sys

import pytest
from stand_in_trackers import stand_in

from vidcfg.tracking import TRACKERS, tracked


@pytest.mark.parametrize("kind", TRACKERS)
def test_a_run_has_its_settings_and_the_values_of_each_video(kind, monkeypatch):
    seen = stand_in(kind, monkeypatch)
    settings = {"guidance.scale": 6.0, "guidance.share": True, "model.folder": None}
    with tracked(kind, "kite", settings) as log:
        log("b", 1, {"mc_flicker": 0.25, "fd": None})
        log("a", 0, {"mc_flicker": 0.5, "clip_score[b32]": 30.0})
        assert not seen.is_closed
    assert seen.is_closed
    assert "kite" in seen.name
    assert seen.parameters == settings | {"model.folder": "None"}
    assert seen.videos == {1: "b", 0: "a"}
    bracket = "clip_score.b32" if kind == "mlflow" else "clip_score[b32]"
    assert seen.values == {1: {"mc_flicker": 0.25}, 0: {"mc_flicker": 0.5, bracket: 30.0}}


@pytest.mark.parametrize("kind", TRACKERS)
def test_tracker_that_is_not_installed_is_one_sentence(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, TRACKERS[kind][1], None)
    with (
        pytest.raises(
            ValueError, match=f"--log {kind} needs .*, which is not installed. Type: pip"
        ),
        tracked(kind, "kite", {}),
    ):
        pass


def test_without_a_tracker_nothing_is_told():
    with tracked(None, "kite", {}) as log:
        log("a", 0, {"seconds": 1.0})
