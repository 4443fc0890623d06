"""Faults put into clips of the mini model's world: the gate names the metric and the frames."""

import cv2
import numpy as np
import pytest
from video_files import write_video

from vidcfg.media.read import read_video
from vidcfg.regress.check import check_clips
from vidcfg.regress.output import table

T, AT = 17, 10


def shifted(frames, levels):
    return np.clip(frames.astype(int) + np.rint(levels).astype(int), 0, 255).astype(np.uint8)


def over_time(values):
    return np.asarray(values)[:, None, None, None]


def alternating(clip, levels):
    """Frames AT - 2 to AT + 2 become brighter and darker by turns."""
    sign = [(-1) ** t if abs(t - AT) <= 2 else 0 for t in range(T)]
    return shifted(clip[:T], levels * over_time(sign))


def noisy(clip, sigma):
    return shifted(clip[:T], np.random.default_rng(0).normal(0, sigma, clip[:T].shape))


def drifting(clip, levels):
    return shifted(clip[:T], over_time(np.linspace(0, levels, T)) * np.array([1, 0, -1]))


def pulsing(clip, levels):
    """Brightness steps up and down where latent frames of stride 4 begin."""
    steps = [levels * (-1) ** (t // 4) if t % 4 == 0 else 0 for t in range(T - 1)]
    return shifted(clip[:T], over_time(np.cumsum([0, *steps])))


def blurred(clip, share):
    """That share of a blurred frame (sigma of one pixel), the rest of the sharp one."""
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), 1) for frame in clip[:T]])
    return shifted(clip[:T], share * (soft.astype(float) - clip[:T]))


def dropped(clip, count):
    return np.delete(clip, [AT + 4 * i for i in range(count)], axis=0)[:T]


def repeated(clip, count):
    return np.insert(clip, [AT] * count, clip[AT - 1], axis=0)[:T]


def frozen(clip, count):
    """The last `count` frames stand still."""
    held = clip[:T].copy()
    held[T - count :] = held[T - count - 1]
    return held


FAULTS = {
    # name: (fault, strength, the metric that has to fail, frames that it has to name)
    "alternation": (alternating, 4, "luminance_flicker", range(AT - 3, AT + 4)),
    "noise": (noisy, 4, "motion_smoothness", range(T)),
    "colour drift": (drifting, 24, "colour_drift", range(T - 5, T)),
    "stride pulse": (pulsing, 10, "stride_pulse", (0, 1, 4, 5, 8, 9, 12, 13)),
    "blur": (blurred, 0.6, "sharpness", range(T)),
    "dropped frame": (dropped, 1, "judder", range(AT - 2, AT + 3)),
    "repeated frame": (repeated, 1, "freeze_share", (AT - 1, AT)),
    "freeze": (frozen, T - AT, "dynamic_degree", range(AT - 1, T)),
}


@pytest.fixture(scope="module")
def base(long_clips, measured):
    return measured({prompt: clip[:T] for prompt, clip in long_clips.items()}, "baseline")


def gate(base, measured, long_clips, fault, strength):
    clips = {prompt: fault(clip, strength) for prompt, clip in long_clips.items()}
    return check_clips(measured(clips, "faulty"), base)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_fails_and_is_named_with_its_frames(name, base, measured, long_clips):
    fault, strength, metric, frames = FAULTS[name]
    outcome = gate(base, measured, long_clips, fault, strength)
    failed = [r.name for r in outcome.judgement.metrics if r.verdict == "FAIL"]
    assert outcome.judgement.exit_code == 1
    assert metric in failed, table(outcome)
    first, last = outcome.worst[metric].frames[0]
    assert first in frames, table(outcome)
    assert last in frames, table(outcome)


@pytest.mark.parametrize("name", ["alternation", "noise", "colour drift", "stride pulse", "blur"])
def test_half_the_fault_is_reported(name, base, measured, long_clips):
    fault, strength, metric, _ = FAULTS[name]
    outcome = gate(base, measured, long_clips, fault, strength / 2)
    assert outcome.verdict in ("FAIL", "INCONCLUSIVE"), table(outcome)
    result = next(r for r in outcome.judgement.metrics if r.name == metric)
    assert result.amount(result.change) in table(outcome)


@pytest.mark.parametrize("name", ["dropped frame", "repeated frame", "freeze"])
def test_fault_in_half_of_the_clips_is_reported(name, base, measured, long_clips):
    fault, strength, metric, _ = FAULTS[name]
    clips = {
        prompt: fault(clip, strength) if index % 2 else clip[:T]
        for index, (prompt, clip) in enumerate(long_clips.items())
    }
    outcome = check_clips(measured(clips, "partly faulty"), base)
    reported = {r.name for r in outcome.judgement.metrics if not r.exits_clean}
    assert metric in reported, table(outcome)


def test_freeze_is_no_cure_for_flicker(base, measured, long_clips):
    outcome = gate(base, measured, long_clips, frozen, T - AT)
    results = {r.name: r for r in outcome.judgement.metrics}
    assert results["mc_flicker"].change < -0.1
    assert results["mc_flicker"].verdict == "INCONCLUSIVE"
    assert "does not count while dynamic_degree" in results["mc_flicker"].reason
    assert results["freeze_share"].verdict == "FAIL"


def test_identity_and_another_order_pass(base, measured, long_clips):
    shuffled = dict(reversed(long_clips.items()))
    clips = {prompt: clip[:T] for prompt, clip in shuffled.items()}
    outcome = check_clips(measured(clips, "same"), base)
    assert outcome.verdict == "PASS"
    assert all(r.change == 0 for r in outcome.judgement.metrics)


@pytest.mark.parametrize("codec", ["ffv1", "h264_lossless"])
def test_lossless_encoding_changes_nothing(codec, base, measured, long_clips, tmp_path):
    clips = {}
    for index, (prompt, clip) in enumerate(long_clips.items()):
        path = write_video(tmp_path / f"{index}.mkv", clip[:T], fps=8, codec=codec)
        clips[prompt] = read_video(path).frames.transpose(0, 2, 3, 1)
    assert check_clips(measured(clips, "decoded"), base).verdict == "PASS"
