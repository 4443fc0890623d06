"""The surface against loops, linspaces and its own promises."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcfg.guidance.frame_map import CausalMap, CogVideoXMap, OneToOneMap
from vidcfg.guidance.frames import (
    Decay,
    Keyframes,
    KnotWeights,
    Ramp,
    Trapezoid,
    Triangle,
    Uniform,
)
from vidcfg.guidance.schedule import Constant, Cosine, Linear, StepSchedule
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.surface import strength_of
from vidcfg.guidance.windows import Window

FINITE = st.floats(-30, 30)


def build(schedule, frames, num_steps=5, num_frames=17, frame_map=None, **options):
    frame_map = frame_map or CausalMap(4)
    given = {name: options.pop(name) for name in ("windows", "reduce") if name in options}
    guidance = Guidance(scale=schedule, frames=frames, **given)
    run = {"num_steps": num_steps, "num_frames": num_frames, "frame_map": frame_map}
    return guidance.surface(**run, **options)


def test_strength_is_one_plus_the_share_of_scale_minus_one():
    surface = build(Linear(5.0, 3.0), KnotWeights([[0, 0.25], [1, 0.75]]), 3, 9)
    expected = np.empty((3, 9))
    for k, scale in enumerate([5.0, 4.0, 3.0]):
        for f in range(9):
            expected[k, f] = 1 + (scale - 1) * (0.25 + 0.5 * f / 8)
    np.testing.assert_allclose(surface.strength_KT, expected, rtol=1e-15)
    per_latent = [[row[0], row[1:5].mean(), row[5:9].mean()] for row in expected]
    np.testing.assert_allclose(surface.strength_KF, per_latent, rtol=1e-15)


@settings(deadline=None)
@given(scale=FINITE, other=st.floats(0, 1))
def test_full_weight_is_the_scale_and_no_weight_is_one_to_the_bit(scale, other):
    strength = strength_of(np.array([[scale], [1.0]]), np.array([[1.0, 0.0, other]] * 2))
    assert strength[0, 0] == scale
    assert strength[0, 1] == 1.0
    assert strength[1].tolist() == [1.0, 1.0, 1.0]


def test_frame_with_zero_weight_keeps_the_prompt():
    surface = build(Constant(9.3), Triangle())
    assert (surface.strength_KT[:, [0, -1]] == 1.0).all()
    assert (surface.strength_KF[:, 0] == 1.0).all()


def test_plateau_of_trapezoid_is_full_strength():
    surface = build(Constant(2.7), Trapezoid(0.1), num_frames=21, frame_map=OneToOneMap())
    assert (surface.strength_KF[:, 2:-2] == 2.7).all()


@pytest.mark.parametrize("num_frames", [1, 2, 14, 25, 81])
def test_ramp_from_zero_is_svd_linspace(num_frames):
    surface = build(Constant(3.0), Ramp(0, 1), 2, num_frames, OneToOneMap())
    # scale - 1 is a power of two, so every product is exact: equal to the last bit.
    for row in surface.strength_KF:
        assert row.tolist() == np.linspace(1.0, 3.0, num_frames).tolist()


@pytest.mark.parametrize("scale", [2.5, 6.0, 7.5])
def test_ramp_at_other_scales_is_a_linspace_within_one_rounding(scale):
    surface = build(Constant(scale), Ramp(0, 1), 2, 25, OneToOneMap())
    # One rounding of the product and one of the sum on either side: 2 units in the last place.
    np.testing.assert_allclose(
        surface.strength_KF[0], np.linspace(1.0, scale, 25), rtol=2 * np.finfo(np.float64).eps
    )


def test_latent_ramp_under_a_falling_scale_is_the_image_guidance_of_open_sora():
    steps, latents = 6, 5
    surface = build(Linear(3.0, 1.0), Ramp(0, 1), steps, latents, OneToOneMap())
    for k, upper in enumerate(np.linspace(3.0, 1.0, steps)):
        np.testing.assert_allclose(
            surface.strength_KF[k], np.linspace(1.0, upper, latents), rtol=1e-15
        )


def test_keyframes_are_reduced_by_max_and_others_by_mean():
    keyframes = build(Constant(5.0), Keyframes([6], 0.0, 2), num_frames=9)
    assert keyframes.weights_KF[0].tolist() == [0.0, 0.0, 1.0]
    by_mean = build(Constant(5.0), Keyframes([6], 0.0, 2), num_frames=9, reduce="mean")
    assert by_mean.weights_KF[0].tolist() == [0.0, 0.0, 0.5]
    assert build(Constant(5.0), Ramp(0, 1), num_frames=9).weights_KF[0, 2] == 6.5 / 8


def test_a_keyframe_given_in_seconds_uses_the_fps_of_the_run():
    surface = build(Constant(5.0), Keyframes(["1.5s"], 0.0, 1), fps=8)
    assert np.flatnonzero(surface.weights_KT[0]).tolist() == [12]
    assert surface.fps == 8.0


def test_windows_turn_frames_off_outside_their_interval_before_reduction():
    surface = build(
        StepSchedule(6.0, 2.0, 0.5),
        Uniform(),
        num_steps=3,
        num_frames=9,
        windows=[Window((3, 6), 0.5, 1.0)],
    )
    assert surface.weights_KT[0].tolist() == [1, 1, 1, 0, 0, 0, 0, 1, 1]
    assert surface.weights_KF.tolist() == [[1.0, 0.5, 0.5], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    assert surface.strength_KF.tolist() == [[6.0, 3.5, 3.5], [2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]


def test_windows_side_by_side_or_over_each_other_go_frame_by_frame():
    windows = [Window((1, 3), 0.0, 0.4), Window((4, -3), 0.6, 1.0), Window((6, 6), 0.0, 0.4)]
    surface = build(Constant(3.0), Uniform(), num_steps=3, num_frames=9, windows=windows)
    # progress 0, 0.5 and 1
    assert surface.weights_KT.tolist() == [
        [1, 1, 1, 1, 0, 0, 1, 1, 1],
        [1, 0, 0, 0, 0, 0, 0, 1, 1],
        [1, 0, 0, 0, 1, 1, 1, 1, 1],
    ]


def test_a_window_that_holds_no_step_is_an_error():
    with pytest.raises(ValueError, match="windows.0 guides no step: none of the 3 steps"):
        build(Constant(2.0), Uniform(), num_steps=3, windows=[Window((0, 3), 0.6, 0.9)])


def test_a_schedule_over_sigma_keeps_step_progress_on_the_axis():
    surface = build(Linear(5.0, 1.0, over="sigma"), Uniform(), 3, 9, sigmas=[4.0, 3.0, 1.0])
    assert surface.scale_K.tolist() == [5.0, 4.0, 2.0]
    assert surface.progress_K.tolist() == [0.0, 0.5, 1.0]


def test_padding_of_cogvideox_is_guided_like_its_first_frame():
    surface = build(Constant(5.0), Decay(0.0), 2, 9, CogVideoXMap(patch_frames=2))
    assert surface.strength_KF.shape == (2, 4)
    assert surface.strength_KF[:, :2].tolist() == [[5.0, 5.0], [5.0, 5.0]]


def test_a_length_that_the_vae_cannot_make_is_an_error():
    with pytest.raises(ValueError, match="num_frames is 16, but .* Use 13 or 17"):
        build(Constant(5.0), Uniform(), num_frames=16)


def test_a_single_frame_and_a_single_step_have_a_surface():
    for frames in (Uniform(), Keyframes(["last"], 0.2, 3), Decay(0.5), Triangle(), Trapezoid()):
        surface = build(Constant(4.0), frames, 1, 1)
        assert surface.strength_KF.tolist() == [[4.0]]


def test_the_arrays_of_a_surface_cannot_be_written():
    surface = build(Constant(4.0), Uniform())
    for array in (surface.strength_KF, surface.weights_KT, surface.scale_K):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


def test_a_surface_survives_json_to_the_last_bit():
    surface = build(Cosine(9.7, 1.3), Keyframes(["middle"], 0.3, 5), fps=8)
    values = json.loads(json.dumps(surface.to_dict()))
    assert np.array(values["strength"]).tolist() == surface.strength_KT.tolist()
    assert np.array(values["latent_strength"]).tolist() == surface.strength_KF.tolist()
    assert (values["num_steps"], values["num_frames"], values["num_latent_frames"]) == (5, 17, 5)
    assert len(values["weights"]) == 1


def test_weights_that_change_over_steps_are_all_in_the_dict():
    surface = build(Constant(4.0), Uniform(), windows=[Window((0, 4), 0.0, 0.5)])
    assert np.array(surface.to_dict()["weights"]).tolist() == surface.weights_KT.tolist()


def test_surfaces_are_built_without_torch():
    code = "import sys, vidcfg.guidance.surface; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
