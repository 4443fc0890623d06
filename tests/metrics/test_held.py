"""`held_share`: a part of the picture that stands still where it should move, and nothing else."""

import sys
from pathlib import Path

import numpy as np
import pytest
from clip_metrics import one_record

SCRIPT = Path(__file__).parents[2] / "scripts" / "flicker_table"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPT))
    try:
        import held

        yield held
    finally:
        sys.path.remove(str(SCRIPT))


def eight_bit(clip):
    frames = np.clip(np.rint(clip), 0, 255).astype(np.uint8).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(frames)


def record(clip):
    return one_record("held_share", eight_bit(clip))


@pytest.fixture(scope="module")
def pan(script):
    return script.drawn("photograph, pan", 0)


@pytest.mark.parametrize(
    ("part", "area"), [("half", 1 / 2), ("third", 1 / 3), ("quadrant", 1 / 4)]
)
@pytest.mark.parametrize("start", [0, 6])
def test_value_is_the_share_of_picture_and_pairs_that_is_held(script, pan, part, area, start):
    found = record(script.held(pan, script.PARTS[part], start))
    assert found.value == pytest.approx(area * (16 - start) / 16, rel=0.03)
    # From the pair in which it comes to stand, though it is told ten pairs later.
    np.testing.assert_allclose(found.trace[:start], 0)
    np.testing.assert_allclose(found.trace[start:], area, rtol=0.03)


@pytest.mark.parametrize("scene", ["parallax", "fade", "exposure sweep", "film grain", "water"])
def test_half_is_told_in_scenes_of_every_kind_and_none_without(script, scene):
    clip = script.drawn(scene, 0)
    assert record(clip).value == 0
    assert record(script.held(clip, script.PARTS["half"], 0)).value == pytest.approx(0.5, abs=0.02)


def test_what_stands_still_rightly_is_not_held(script):
    for scene in script.RIGHTLY:
        assert record(script.drawn(scene, 1)).value == 0, scene


@pytest.mark.parametrize("scene", ["moving object", "flat object", "standstill", "dissolve"])
def test_still_background_and_still_clip_are_not_held(script, scene):
    assert record(script.drawn(scene, 0)).value == 0


def test_value_is_the_same_mirrored_transposed_and_in_floats(script, pan):
    frames = eight_bit(script.held(pan, script.PARTS["quadrant"], 2))
    value = one_record("held_share", frames).value
    assert value == pytest.approx(0.25 * 14 / 16, rel=0.03)
    views = frames[..., ::-1], frames[..., ::-1, :], frames.swapaxes(2, 3)
    for view in (*views, np.float32(frames) / 255):
        assert one_record("held_share", view).value == pytest.approx(value, abs=1e-6)


def test_noise_of_half_a_level_on_a_held_part_does_not_hide_it(script, pan):
    clip = script.held(pan, script.PARTS["half"], 0)
    noise = np.random.default_rng(0).normal(0, 0.5, clip.shape)
    assert record(clip + noise).value == pytest.approx(0.5, abs=0.02)


def test_size_of_the_frames_does_not_matter(script, pan):
    clip = script.held(pan, script.PARTS["half"], 0).repeat(3, axis=1).repeat(3, axis=2)
    assert record(clip[:, :, :-31]).value == pytest.approx(144 / (288 - 31), rel=0.03)


def test_clips_too_short_or_too_small_have_no_value(pan):
    short, small = record(pan[:10]), record(pan[:, :11, :40])
    assert short.skipped_reason == "a held part is told from 11 frames on"
    assert "smaller than the 12 pixels" in small.skipped_reason
    assert record(pan[:1]).skipped_reason == "the clip has too few frames"
    assert record(pan[:11]).value == 0


def test_frozen_tile_fails_against_its_own_baseline_and_the_same_clips_pass(script):
    from vidcfg.regress.check import check_clips
    from vidcfg.regress.clips import as_set
    from vidcfg.regress.measure import measure_frames
    from vidcfg.results import Key

    names = ("photograph, pan", "fast pan", "fade", "whole-pixel pan")
    clips = {name: script.drawn(name, 1) for name in names}
    frozen = {name: script.held(clip, script.PARTS["quadrant"], 0) for name, clip in clips.items()}
    base, new = (
        as_set(
            source,
            [
                measure_frames(eight_bit(clip).transpose(0, 2, 3, 1), Key("", name, 0), fps=8)
                for name, clip in made.items()
            ],
        )
        for source, made in (("accepted", clips), ("frozen", frozen))
    )
    results = {r.name: r for r in check_clips(new, base).judgement.metrics}
    assert results["held_share"].verdict == "FAIL"
    assert results["held_share"].change == pytest.approx(0.25, abs=0.01)
    # No other metric sees that something stands still.
    assert results["freeze_share"].verdict == "PASS"
    assert check_clips(base, base).verdict == "PASS"
