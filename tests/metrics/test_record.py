import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from vidcfg.evaluate.sets import set_means
from vidcfg.media.video import Video
from vidcfg.metrics.meters import measure_video
from vidcfg.metrics.record import (
    Backend,
    ClipInfo,
    Record,
    common_clip,
    mean_interval,
    mean_of,
)

CLIP = ClipInfo(num_frames=17, height=32, width=48, fps=8.0, lossless=True, codec="ffv1")


def record(**changes):
    made = Record(
        name="fd[mini]",
        value=2.0,
        n=64,
        protocol="cov=unbiased",
        unit="feature^2",
        better="lower",
        backend=Backend("mini-scorer", "a" * 64, "assets"),
        interval=(1.5, 2.5),
        clip=CLIP,
        trace=(0.1, None, 0.3),
        extra={"coverage": 0.9},
    )
    return replace(made, **changes)


def test_record_survives_json():
    original = record()
    assert Record.from_dict(json.loads(json.dumps(original.to_dict()))) == original
    bare = Record("frame_diff", None, 0, "range=0..1", skipped_reason="no file", status="failed")
    assert Record.from_dict(json.loads(json.dumps(bare.to_dict()))) == bare


def test_values_of_clips_of_extremes_are_read_again():
    frames = np.zeros((3, 17, 3, 32, 40), np.uint8)
    frames[0, 1::2] = 255  # a strobe: second differences of 2
    frames[1, :9, 0], frames[1, 9:, 2] = 255, 255  # red, then blue: a way of colour of 2
    frames[2, 9:] = np.indices((32, 40)).sum(0) % 2 * 255  # gradients of 1.4
    for frames_TCHW in frames:
        clip = Video(frames_TCHW, 8.0, lossless=True)
        for made in measure_video(clip, families=("flicker", "warp", "appearance")):
            assert Record.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_mean_of_drifts_has_an_interval_on_both_sides():
    frames = np.full((4, 9, 3, 16, 20), 100, np.uint8)
    frames -= (
        np.linspace(0, [[10, 4, 0, -2]], 9).reshape(9, 4).T[..., None, None, None].astype("u1")
    )
    clips = [Video(frames_TCHW, 8.0, lossless=True) for frames_TCHW in frames]
    found = [measure_video(clip, families=("appearance",)) for clip in clips]
    drifts = [
        replace(r, subject=str(i))
        for i, records in enumerate(found)
        for r in records
        if r.name == "brightness_drift"
    ]
    values = [drift.value for drift in drifts]
    assert min(values) < 0
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert set_means(drifts)[0].interval == pytest.approx(tuple(expected), rel=1e-9)


def test_row_with_further_columns_is_still_a_record():
    assert Record.from_dict(record().to_dict() | {"prompt": "a kite"}) == record()


@pytest.mark.parametrize(
    "changes",
    [
        {"value": float("nan")},
        {"value": None},
        {"skipped_reason": "missing"},
        {"status": "good"},
        {"status": "invalid"},
        {"interval": (3.0, 2.0)},
        {"trace": (0.1, float("inf"))},
    ],
)
def test_record_that_pretends_is_refused(changes):
    with pytest.raises(ValueError, match=r"fd\[mini\]|status"):
        record(**changes)


def test_common_clip_keeps_what_all_share():
    shared = common_clip([CLIP, replace(CLIP, fps=24.0, lossless=False)])
    assert shared == replace(CLIP, fps=None, lossless=None)


def test_mean_and_interval_do_not_depend_on_order():
    values = [1e16, 1.0, -1e16, 3.0, 0.1]
    assert mean_of(values) == mean_of(values[::-1]) == pytest.approx(0.82)
    scattered = [0.1, 0.7, 0.3, 1e-9, 0.2]
    assert mean_interval(scattered) == mean_interval(scattered[::-1])


def test_interval_of_two_values_is_students():
    # t(0.975, 1) = 12.7062; sd = sqrt(0.5), n = 2.
    low, high = mean_interval([1.0, 2.0])
    assert (high - low) / 2 == pytest.approx(12.7062 * 0.5, rel=1e-4)
    assert mean_interval([1.0]) is None


@pytest.mark.parametrize(("prompts", "seeds"), [(4, 8), (16, 4)])
def test_interval_by_prompt_covers_the_mean_as_often_as_it_says(prompts, seeds):
    draw = np.random.default_rng(7)
    names = [str(i) for i in range(prompts) for _ in range(seeds)]
    by_prompt, by_clip = [], []
    for _ in range(1500):
        # Half of the variance is the prompt's.
        values = draw.normal(size=(prompts, 1)) + draw.normal(size=(prompts, seeds))
        values = values.ravel().tolist()
        for found, groups in ((by_prompt, names), (by_clip, None)):
            low, high = mean_interval(values, prompts=groups)
            found.append(low <= 0 <= high)
    # Three standard errors of 1500 runs are 1.7 %.
    assert 0.93 < np.mean(by_prompt) < 0.97
    assert np.mean(by_clip) < 0.8


def test_interval_stays_in_the_range_of_the_metric_and_needs_two_prompts():
    values = [0.0, 0.0, 0.5, 0.02]
    low, high = mean_interval(values)
    assert low < 0
    assert mean_interval(values, low=0.0, high=1.0) == (0, high)
    assert mean_interval([1.0, 0.9, 1.0], low=0.0, high=1.0)[1] == 1
    assert mean_interval(values, prompts=["a"] * 4) is None
