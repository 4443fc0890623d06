"""Drawn scenes with known faults: the metric named for a fault rises in scenes of every kind."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from clip_metrics import one_record, records_of

SCRIPT = Path(__file__).parents[2] / "scripts" / "flicker_table"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPT))
    try:
        import faults
        import scenes

        yield scenes, faults
    finally:
        sys.path.remove(str(SCRIPT))


def eight_bit(clip):
    frames = np.clip(np.rint(clip), 0, 255).astype(np.uint8).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(frames)


def value(clip, name):
    return one_record(name, eight_bit(clip)).value


@pytest.fixture(scope="module")
def parallax(script):
    """A clean scene, and the function that gives its metrics, each measured once."""
    clean = script[0].draw("parallax", 0)
    return clean, cache(lambda name: value(clean, name))


def test_scenes_are_drawn_alike_each_time(script):
    scenes, _ = script
    assert len(scenes.CLEAN) >= 25
    clip = scenes.draw("parallax", 3)
    assert clip.shape == (17, 96, 96, 3)
    assert (clip == scenes.draw("parallax", 3)).all()
    assert (clip != scenes.draw("parallax", 4)).any()


@pytest.mark.parametrize("scene", ["fast pan", "exposure sweep", "two objects that cross"])
def test_local_blinking_rises_with_its_amplitude(script, scene):
    clip = script[0].draw(scene, 0) * 0.5 + 60
    signs = (1 - 2 * (np.arange(17) % 2))[:, None, None, None]
    values = []
    for levels in (0, 4, 8, 16, 32, 60):
        faulty = clip.copy()
        faulty[:, 30:52, 40:62] += levels * signs
        found = records_of(eight_bit(faulty), "warp")
        values.append([found[name].value for name in ("mc_flicker", "mc_flicker_p95")])
    assert (np.diff(values, axis=0) > 0).all()


@pytest.mark.parametrize("scene", ["photograph, pan", "fade", "camera shake", "moving light"])
def test_clean_scenes_score_below_alternation_by_a_level(script, scene):
    assert value(script[0].draw(scene, 1), "mc_flicker") < 2 / 255


@pytest.mark.parametrize(
    "fault",
    [
        *(
            "all +-.5 level",
            "colour at equal luma",
            "saturation pulse, 12 %",
            "texture boil, 4 levels",
        ),
        *("5 % of the area +-16", "noise of 2 levels", "every 4th frame soft", "ghosting of 35 %"),
        *("one frame pops by 12", "a frame repeated", "two frames swapped", "a frame dropped"),
        *("frozen tail", "melting", "wobble of .7 px", "content drifts, 50 %"),
        *("colour drifts, 14 levels", "first latent frame differs"),
    ],
)
def test_each_fault_raises_its_metric(script, parallax, fault):
    make, name = script[1].FAULTS[fault]
    clean, value_of_clean = parallax
    faulty = make(clean, np.random.default_rng(0))
    assert value(faulty, name) > value_of_clean(name)


def test_margins_of_the_gate_stand_beside_what_a_fault_adds_in_nine_of_ten_clips(script):
    from margins import margins

    pairs = np.array([(100.0, 100 * (1.1 + 0.1 * clip)) for clip in range(11)])
    text = margins({"fault": "mc_flicker", "other": "ghosting"}, lambda fault, name: pairs)
    # The second of eleven; ghosting is no metric of the gate.
    assert text.splitlines()[-1] == "| fault | `mc_flicker` | 20.0% | 1.5% | 5.0% |"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--clips", "nowhere"], "--clips is nowhere, which is no folder. Name one of videos."),
        (["--markdown", "nowhere/page.md"], "there is no folder nowhere. Create it."),
    ],
)
def test_a_folder_that_is_not_there_is_told_before_anything_is_scored(options, words, tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "out"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
