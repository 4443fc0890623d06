"""Cuts of textures that move, what is none, and that metrics of joined shots are theirs."""

import numpy as np
import pytest
from clip_metrics import records_of

import vidcfg
from vidcfg.metrics.catalogue import METRICS
from vidcfg.metrics.meters import ClipMeasures, measure
from vidcfg.metrics.shots import with_cuts


@pytest.fixture(scope="module")
def shot(texture):
    """A texture of its own for each seed that moves left; float32 [T, 3, 48, 64]."""

    def make(seed, *, num_frames, step=1):
        wide = texture(48, 64 + step * num_frames, seed=seed, sigma=1.0)
        frames = [wide[:, t * step : t * step + 64] for t in range(num_frames)]
        return np.repeat(np.stack(frames)[:, None], 3, axis=1)

    return make


def cuts_of(frames):
    return [index for index, (_, starts) in enumerate(with_cuts(frames)) if starts]


def test_a_cut_is_the_first_frame_of_the_next_shot(shot):
    parts = [shot(seed, num_frames=n, step=seed) for seed, n in ((1, 6), (2, 5), (0, 7), (3, 2))]
    joined = np.concatenate(parts)
    assert cuts_of(joined) == [6, 11, 18]
    assert cuts_of(np.rint(255 * joined).astype(np.uint8)) == [6, 11, 18]
    assert all(cuts_of(part) == [] for part in parts)


def changed(frames, places, values):
    faulty = frames.copy()
    faulty[places] = values
    return np.clip(faulty, 0, 1).astype(np.float32)


FAULTS = {
    "pop of a frame": lambda f, other: changed(f, [8], other[8:9]),
    "pop of three frames": lambda f, other: changed(f, slice(8, 11), other[8:11]),
    "last frame differs": lambda f, other: changed(f, [-1], other[-1:]),
    "first frame differs": lambda f, other: changed(f, [0], other[:1]),
    "strobe": lambda f, other: changed(f, slice(1, None, 2), other[1::2]),
    "blinking": lambda f, other: changed(f, slice(1, None, 2), f[1::2] + 60 / 255),
    "flash": lambda f, other: changed(f, [8, 9], 1.0),
    "goes black": lambda f, other: changed(f, slice(8, None), 0.0),
    "exposure jumps": lambda f, other: changed(f, slice(8, None), 0.5 * f[8:]),
    "frame repeated": lambda f, other: f[[*range(8), *range(7, 16)]],
    "frames dropped": lambda f, other: np.delete(f, [8, 9, 10], axis=0),
    "frames swapped": lambda f, other: f[[*range(8), 9, 8, *range(10, 16)]],
    "stops and catches up": lambda f, other: changed(f, slice(4, 10), f[4]),
    "a third is replaced": lambda f, other: changed(f, np.s_[8:, :, :, :20], other[8:, :, :, :20]),
    "dissolve": lambda f, other: (
        f + np.clip((np.arange(16) - 6) / 4, 0, 1)[:, None, None, None] * (other - f)
    ),
    "noise": lambda f, other: np.random.default_rng(0).random(f.shape, dtype=np.float32),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", [0, 3])
def test_a_fault_is_no_cut(shot, fault, step):
    frames, other = shot(0, num_frames=16, step=step), shot(9, num_frames=16, step=1)
    assert cuts_of(FAULTS[fault](frames, other).astype(np.float32)) == []


def test_four_frames_of_something_else_do_not_hide_the_way_back(shot):
    frames, other = shot(0, num_frames=16), shot(9, num_frames=16)
    assert cuts_of(changed(frames, slice(8, 12), other[8:12])) == [8]


def test_three_frames_are_read_ahead(shot):
    given, frames = [], shot(0, num_frames=9)
    for count, _ in enumerate(with_cuts(given.append(0) or frame for frame in frames)):
        assert len(given) == min(count + 4, 9)


@pytest.fixture(scope="module")
def parts(shot):
    """The second shot is brighter in every second frame; the first is a whole of VAE strides."""
    first, second = shot(1, num_frames=16), shot(2, num_frames=11, step=2)
    second[::2] += 0.05
    return first, second.astype(np.float32)


@pytest.fixture(scope="module")
def joined(parts):
    return records_of(np.concatenate(parts))


@pytest.fixture(scope="module")
def alone(parts):
    return [records_of(part) for part in parts]


def test_values_of_a_clip_are_those_of_its_shots(alone, joined):
    for name, found in joined.items():
        one, other = (records[name] for records in alone)
        expected = np.average([one.value, other.value], weights=[one.n, other.n])
        if name.endswith("_peak"):
            expected = max(one.value, other.value)
        elif name == "cuts":
            expected = 1
        assert found.n == one.n + other.n, name
        assert found.value == pytest.approx(expected, rel=1e-9, abs=1e-12), name
        assert found.status == "ok"
        assert found.extra["cuts"] == [16]


def test_entries_of_traces_stay_those_of_the_clips_frames(alone, joined):
    for name, missing in (("contrast", 0), ("frame_diff", 1), ("mc_flicker", 2), ("judder", 2)):
        traces = [records[name].trace for records in alone]
        assert joined[name].trace == (*traces[0], *[None] * missing, *traces[1]), name
    smooth = joined["motion_smoothness"].trace
    assert [t for t, value in enumerate(smooth) if value is None] == [7]
    assert len(smooth) == 13
    worst = alone[1]["mc_flicker"].extra["worst"]
    assert joined["mc_flicker"].extra["worst"] == worst | {"frame": 16 + worst["frame"]}


def test_a_shot_too_short_for_a_metric_has_no_part_in_it(parts, alone):
    whole, first = records_of(np.concatenate([parts[0], parts[1][:2]])), alone[0]
    assert whole["frame_diff"].extra["cuts"] == [16]
    assert whole["mc_flicker"].value == first["mc_flicker"].value
    assert whole["mc_flicker"].trace == (*first["mc_flicker"].trace, None, None)
    assert whole["hf_share"].value == first["hf_share"].value
    assert whole["contrast"].n == 18


def test_the_stride_pulse_keeps_the_phase_of_the_clip(shot):
    first, second = shot(1, num_frames=6), shot(2, num_frames=13, step=0)
    # Latent frames of stride 4 end at frames 8, 12 and 16 of the clip.
    steps = 0.02 * np.cumsum(np.arange(6, 19) % 4 == 1)
    stepped = (0.5 * second + steps[:, None, None, None]).astype(np.float32)
    found = records_of(np.concatenate([first, stepped]), "flicker")["stride_pulse"]
    assert found.extra["cuts"] == [6]
    energy = np.array(found.trace, dtype=float)
    assert np.flatnonzero(energy[6:] > 1e-4).tolist() == [2, 6, 10]
    assert found.value > 0.5


def test_a_function_of_a_user_that_fails_in_one_shot_gives_the_clip_no_value(shot):
    parts = [shot(seed, num_frames=n, step=seed) for seed, n in ((1, 6), (2, 5))]
    numbers = iter([np.nan, *np.ones(10)])
    try:
        vidcfg.register_metric("once", "appearance", "0..1", "none", "a test")(
            lambda frame_CHW: next(numbers)
        )
        meter = ClipMeasures([METRICS["once"], METRICS["saturation"], METRICS["contrast"]])
        measure(np.concatenate(parts), [meter])
        once, _, contrast = meter.finish()
    finally:
        METRICS.pop("once", None)
    assert contrast.extra["cuts"] == [6]
    assert (once.value, once.status) == (None, "invalid")
    assert once.skipped_reason == "its function gave no number: the number is nan"
    assert contrast.value > 0
