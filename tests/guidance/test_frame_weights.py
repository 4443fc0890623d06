"""Frame weights against closed forms and plain loops."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcfg.guidance.frame_map import CausalMap, OneToOneMap
from vidcfg.guidance.frames import (
    Decay,
    FrameWeights,
    Keyframes,
    KnotWeights,
    Ramp,
    Trapezoid,
    Triangle,
    Uniform,
)
from vidcfg.guidance.schedule import progress
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.windows import Window, window_mask
from vidcfg.settings.errors import ConfigError

SHARES = st.floats(0, 1)


def refuse(findings):
    for finding in findings:
        raise ValueError(str(finding))


def arguments_of(cls, *strategies):
    """A weight class with drawn arguments, built inside the test."""
    return st.tuples(st.just(cls), st.tuples(*strategies))


POSITIONS = st.lists(st.sampled_from(["first", "middle", "last", "0s", 0, -1]), min_size=1)
POINTS = st.dictionaries(SHARES, SHARES, min_size=1, max_size=4).map(lambda d: sorted(d.items()))
FALLOFF_NAMES = st.sampled_from(["linear", "cosine", "gaussian"])
ANY_WEIGHTS = st.one_of(
    arguments_of(Uniform),
    arguments_of(Keyframes, POSITIONS, SHARES, st.floats(0.1, 50), FALLOFF_NAMES),
    arguments_of(Decay, SHARES, st.sampled_from(["linear", "cosine"])),
    arguments_of(Decay, st.floats(1e-6, 1), st.just("exponential")),
    arguments_of(Ramp, SHARES, SHARES),
    arguments_of(Triangle),
    arguments_of(Trapezoid, st.floats(0.01, 0.5)),
    arguments_of(KnotWeights, POINTS),
)


@settings(deadline=None)
@given(weights=ANY_WEIGHTS, num_frames=st.integers(1, 90))
def test_weights_are_one_share_per_frame(weights, num_frames):
    cls, arguments = weights
    values = cls(*arguments).weights(num_frames, fps=8.0)
    assert values.shape == (num_frames,)
    assert values.dtype == np.float64
    assert values.min() >= 0.0
    assert values.max() <= 1.0


def test_every_kind_of_the_design_has_one_class():
    names = ["uniform", "keyframes", "decay", "ramp", "triangle", "trapezoid", "list", "knots"]
    assert list(FrameWeights.kinds) == names


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, lambda v: lambda f: v[f]])
def test_a_list_an_array_a_tensor_and_a_function_of_the_frame_are_weights(make):
    values = [1.0, 0.25, 0.5, 0.0, 0.75]
    guidance = Guidance(3.0, frames=make(values))
    surface = guidance.surface(num_steps=2, num_frames=5, frame_map=CausalMap(4))
    np.testing.assert_array_equal(surface.weights_KT, [values] * 2)
    np.testing.assert_array_equal(surface.strength_KF, [[3.0, 1.75]] * 2)
    json.dumps(guidance.to_dict())


def test_weights_of_another_length_or_below_zero_are_refused():
    run = {"num_steps": 2, "frame_map": CausalMap(4)}
    what = "guidance.frames.values has 5 weights, but the clip has 9 frames. Write 9, or kind: kn"
    with pytest.raises(ValueError, match=what):
        Guidance(3.0, frames=[1.0, 0.5, 0.5, 0.0, 0.5]).surface(num_frames=9, **run)
    with pytest.raises(ConfigError, match="frames.1 is -0.5, but must be from 0 to 1000"):
        Guidance(3.0, frames=np.array([1.0, -0.5]))
    with pytest.raises(ValueError, match="gives frame 1 the weight -2. Return a number from 0"):
        Guidance(3.0, frames=lambda frame: -2.0 * frame).surface(num_frames=5, **run)
    with pytest.raises(ConfigError, match="uniform"):
        Guidance(3.0, frames=[1.0, 1.0])


def test_scale_takes_an_array_of_one_number_per_step():
    assert Guidance(np.array([3.0, 2.0])) == Guidance([3.0, 2.0])
    assert Guidance(np.float32(2.5)) == Guidance(2.5)


def test_numbers_of_numpy_and_torch_are_numbers_wherever_they_stand():
    places, first, half = np.array([3, -2]), np.int64(1), np.float32(0.5)
    frames = {"kind": "keyframes", "at": places, "floor": half, "reach": torch.tensor(4)}
    window = {"frames": (first, np.int32(4)), "to": half}
    ours = Guidance(np.float32(3), frames=frames, windows=[window])
    assert Keyframes(at=[*places], floor=half, reach=np.int64(4)) == ours.frames
    frames = {"kind": "keyframes", "at": [3, -2], "floor": 0.5, "reach": 4.0}
    assert ours == Guidance(3.0, frames=frames, windows=[{"frames": [1, 4], "to": 0.5}])


def test_only_keyframes_are_reduced_by_max():
    by_max = [kind for kind, cls in FrameWeights.kinds.items() if cls.reducer == "max"]
    assert by_max == ["keyframes"]


@pytest.mark.parametrize("curve", ["linear", "cosine", "exponential"])
def test_decay_falls_from_one_to_its_end(curve):
    forms = {
        "linear": lambda u: 1 + (0.2 - 1) * u,
        "cosine": lambda u: 0.2 + (1 - 0.2) * (1 + math.cos(math.pi * u)) / 2,
        "exponential": lambda u: 0.2**u,
    }
    weights = Decay(0.2, curve).weights(6)
    # Two roundings of numbers below 1.
    np.testing.assert_allclose(weights, [forms[curve](f / 5) for f in range(6)], atol=2.3e-16)
    assert weights[0] == 1.0
    assert weights[-1] == 0.2
    assert (np.diff(weights) < 0).all()
    assert Decay(0.2, curve).weights(1).tolist() == [1.0]


def test_an_exponential_to_zero_says_what_to_type():
    with pytest.raises(ValueError, match="end is 0, which.*Write 0.01, or curve: linear"):
        Decay(0, "exponential")


def test_ramp_is_a_linspace():
    assert Ramp(0, 1).weights(5).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert Ramp(1.0, 0.5).weights(3).tolist() == [1.0, 0.75, 0.5]
    assert Ramp(0.25, 1.0).weights(1).tolist() == [0.25]


def test_triangle_is_zero_at_the_ends_and_one_in_the_middle():
    assert Triangle().weights(5).tolist() == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert Triangle().weights(4).tolist() == [0.0, 2 / 3, 2 / 3, 0.0]
    assert Triangle().weights(2).tolist() == [0.0, 0.0]
    assert Triangle().weights(1).tolist() == [1.0]


@pytest.mark.parametrize("num_frames", [5, 8, 21])
def test_triangle_is_the_wave_of_the_orbit_guider(num_frames):
    # 2 |v - floor(v + 1/2)| over v = linspace(0, 1, T), the published form.
    v = np.linspace(0, 1, num_frames)
    wave = 2 * np.abs(v - np.floor(v + 0.5))
    np.testing.assert_allclose(Triangle().weights(num_frames), wave, atol=4e-16)


def test_plateau_of_trapezoid_is_full_weight():
    assert Trapezoid(0.1).weights(10).tolist() == [0.0] + [1.0] * 8 + [0.0]
    assert Trapezoid(0.2).weights(11).tolist() == [0.0, 0.5] + [1.0] * 7 + [0.5, 0.0]


def test_trapezoid_has_an_edge_frame_even_in_a_short_video():
    assert Trapezoid(0.1).weights(3).tolist() == [0.0, 1.0, 0.0]
    assert Trapezoid(0.1).weights(2).tolist() == [0.0, 0.0]
    assert Trapezoid(0.1).weights(1).tolist() == [1.0]


def test_trapezoid_counts_edge_frames_as_a_person_would():
    # 0.29 * 100 is just below 29 in floating point.
    weights = Trapezoid(0.29).weights(100)
    assert weights[28] == 28 / 29
    assert weights[29] == 1.0


@settings(deadline=None)
@given(edge=st.floats(0.01, 0.5), num_frames=st.integers(3, 80))
def test_trapezoid_is_symmetric_off_at_the_ends_and_full_inside(edge, num_frames):
    weights = Trapezoid(edge).weights(num_frames)
    assert weights[0] == weights[-1] == 0.0
    assert weights[(num_frames - 1) // 2] == 1.0
    assert weights.tolist() == weights[::-1].tolist()


@pytest.mark.parametrize("bad", [0, -0.1, 0.6, math.nan])
def test_trapezoid_refuses_an_edge_outside_its_range(bad):
    with pytest.raises(ValueError, match="edge is .*(above 0 and at most 0.5|a finite number)"):
        Trapezoid(bad)


@pytest.mark.parametrize("given", [[0.0, 1.0, 1.5, 0.5, 2.0], lambda f: [0, 1, 1.5, 0.5, 2][f]])
def test_weight_above_one_that_was_written_goes_beyond_the_scale(given):
    surface = Guidance(5.0, frames=given).surface(
        num_steps=2, num_frames=5, frame_map=OneToOneMap()
    )
    assert surface.strength_KF[1].tolist() == [1.0, 5.0, 7.0, 3.0, 9.0]


def test_knots_are_linear_over_positions():
    weights = KnotWeights([[0.25, 0.0], [0.75, 1.0]]).weights(5)
    assert weights.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert KnotWeights([[0.0, 0.3], [1.0, 1.0]]).weights(1).tolist() == [0.3]


def test_weights_above_one_point_to_the_scale():
    for build in (
        lambda: Ramp(0, 1.5),
        lambda: Decay(-0.5),
        lambda: Keyframes(["first"], 1.1, 4),
    ):
        with pytest.raises(ValueError, match="but must be from 0 to 1"):
            build()


FALLOFFS = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "gaussian": lambda x: (math.exp(-((3 * x) ** 2) / 2) - math.exp(-4.5)) / (1 - math.exp(-4.5)),
}


@pytest.mark.parametrize("falloff", FALLOFFS)
@pytest.mark.parametrize(("floor", "reach"), [(0.4, 4), (0.0, 2.5), (0.1, 1)])
def test_keyframes_fall_to_the_floor_and_overlap_by_max(falloff, floor, reach):
    keyframes, num_frames = [2, 7, 16], 21
    expected = []
    for frame in range(num_frames):
        per_key = [
            floor + (1 - floor) * max(FALLOFFS[falloff](min(abs(frame - key) / reach, 1)), 0)
            for key in keyframes
        ]
        expected.append(max(per_key))
    weights = Keyframes(keyframes, floor, reach, falloff).weights(num_frames)
    # The oracle rounds in another order: a few units in the last place of numbers up to 1.
    np.testing.assert_allclose(weights, expected, atol=5e-16)
    assert (weights[keyframes] == 1.0).all()
    far = [f for f in range(num_frames) if min(abs(f - key) for key in keyframes) >= reach]
    assert len(far) > 0
    assert (weights[far] == floor).all()


def test_keyframe_positions_in_all_their_forms():
    at = ["first", "middle", "last", 3, -2, "1.5s", "0s", "last"]
    # 17 frames at 4 fps: 1.5s is frame 6.
    assert Keyframes(at, 0.4, 2).frames(17, fps=4) == (0, 3, 6, 8, 15, 16)


@pytest.mark.parametrize(("num_frames", "middle"), [(1, 0), (2, 0), (4, 1), (17, 8)])
def test_middle_is_the_lower_of_two_middle_frames(num_frames, middle):
    assert Keyframes(["middle"], 0.0, 1).frames(num_frames) == (middle,)


@pytest.mark.parametrize(
    ("time", "frame"), [("0.3s", 2), ("0.32s", 3), ("0.3125s", 3), (".5s", 4)]
)
def test_a_time_is_the_nearest_frame_and_the_later_one_at_a_tie(time, frame):
    assert Keyframes([time], 0.0, 1).frames(9, fps=8) == (frame,)


@pytest.mark.parametrize(
    ("entry", "fps", "message"),
    [
        (17, None, r"at.0 is 17, but the clip has frames 0 to 16 \(or -17 to -1"),
        (-18, None, "at.0 is -18, but the clip has frames 0 to 16"),
        ("1.5s", None, "'1.5s', but no fps is known. Set video.fps"),
        ("2.5s", 8, r"'2.5s', but the last of 17 frames at 8 fps is at 2s"),
        ("start", None, "'start', but must be one of first, middle, last"),
        ("-1s", 8, "'-1s', but must be one of first"),
        ("nans", 8, "'nans', but must be one of first"),
        ("s", 8, "'s', but must be one of first"),
        (True, None, "is true, but must be first, middle, last"),
    ],
)
def test_a_position_that_does_not_fit_says_what_does(entry, fps, message):
    with pytest.raises(ValueError, match=message):
        refuse(Keyframes([entry], 0.4, 4).check_run(17, fps))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 0.4, 4), "must be a list of at least one item"),
        ((["first"], 0.4, 0), "reach is 0.*above 0"),
        ((["first"], 0.4, 4, "cubic"), "linear, cosine, gaussian"),
    ],
)
def test_bad_keyframes_say_what_to_type(arguments, message):
    with pytest.raises(ValueError, match=message):
        Keyframes(*arguments)


def test_a_window_guides_its_frames_inside_its_interval_alone():
    mask = window_mask([Window((1, 2), 0.5, 1.0)], progress(3), 5)
    off, on = [True, False, False, True, True], [True] * 5
    assert mask.tolist() == [off, on, on]


def test_overlapping_windows_guide_while_any_of_them_does():
    windows = [Window((0, 2), 0.0, 0.0), Window((2, -1), 1.0, 1.0)]
    mask = window_mask(windows, progress(3), 4)
    assert mask.tolist() == [
        [True, True, True, False],
        [False, False, False, False],
        [False, False, True, True],
    ]


def test_without_windows_every_frame_is_guided_on_every_step():
    assert window_mask([], progress(4), 3).all()


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (Window((0, 9)), r"is \[0, 9\], but the clip has frames 0 to 8"),
        (Window((-10, 3)), r"is \[-10, 3\], but the clip has frames"),
        (Window((-1, 3)), r"is \[-1, 3\], but frame 8 is after frame 3. Swap them"),
    ],
)
def test_a_window_outside_the_video_is_refused(window, message):
    with pytest.raises(ValueError, match=message):
        refuse(window.check_run(progress(4), 9, np.ones(4, dtype=bool)))
