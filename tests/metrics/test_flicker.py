"""Closed forms of the difference metrics. Frames are float32, so values hold to about 1e-7."""

import numpy as np
import pytest
from clip_metrics import frame_diff, frame_energy, second_diff, value_of

from vidcfg.metrics.flicker import luminance_flicker, stride_pulse

FLOAT32 = 2e-7


@pytest.mark.parametrize(
    ("frequency", "expected"),
    [(1 / 4, 0.1), (1 / 8, 0.0493319136), (1 / 16, 0.0245719889), (0.1, 0.0387111724)],
)
def test_frame_difference_of_a_sinusoid(sinusoid, frequency, expected):
    assert frame_diff(sinusoid(frequency)).mean() == pytest.approx(expected, abs=FLOAT32)


@pytest.mark.parametrize("frequency", [1 / 4, 1 / 8, 1 / 16, 0.1])
def test_frame_difference_follows_the_product_formula(sinusoid, frequency):
    t, phase, amplitude = np.arange(31), 0.3, 0.17
    closed = 2 * amplitude * np.sin(np.pi * frequency)
    closed = np.abs(closed * np.cos(2 * np.pi * frequency * (t + 0.5) + phase))
    frames = sinusoid(frequency, amplitude=amplitude, phase=phase)
    np.testing.assert_allclose(frame_diff(frames), closed, atol=FLOAT32)


def test_quarter_frequency_differs_equally_in_every_pair(sinusoid):
    frames = sinusoid(1 / 4)
    np.testing.assert_allclose(frame_diff(frames), 0.1, atol=FLOAT32)
    assert second_diff(frames).mean() == pytest.approx(0.1, abs=FLOAT32)


def test_alternation_has_twice_and_four_times_its_amplitude(sinusoid):
    frames = sinusoid(1 / 2, phase=np.pi / 2)
    np.testing.assert_allclose(frame_diff(frames), 0.2, atol=FLOAT32)
    np.testing.assert_allclose(second_diff(frames), 0.4, atol=2 * FLOAT32)


def test_vbench_score_of_levels_100_and_110():
    frames = np.full((6, 3, 4, 5), 100, dtype=np.uint8)
    frames[1::2] = 110
    # uint8 frames divided by 255 in float32.
    vbench = [
        value_of("vbench_temporal_flickering", f) for f in (frames, frames / np.float32(255))
    ]
    assert vbench[0] == pytest.approx(245 / 255, abs=FLOAT32)
    assert vbench[1] == pytest.approx(0.9607843137)


def test_linear_fade_has_no_second_difference(spatially_constant):
    frames = spatially_constant(np.linspace(0, 1, 11))
    np.testing.assert_allclose(frame_diff(frames), 1 / 10, atol=FLOAT32)
    np.testing.assert_allclose(second_diff(frames), 0, atol=2 * FLOAT32)
    assert luminance_flicker(np.linspace(0, 1, 11)) == pytest.approx(0, abs=1e-12)


def test_white_noise_has_the_moments_of_gaussian_differences():
    sigma, rng = 0.02, np.random.default_rng(0)
    noise = 0.5 + sigma * rng.standard_normal((9, 3, 64, 96))
    frames = noise.astype(np.float32)
    # 8 x 18432 values: the standard error of these means is below 0.3 %.
    assert frame_diff(frames).mean() == pytest.approx(2 * sigma / np.sqrt(np.pi), rel=0.01)
    assert np.sqrt(frame_energy(frames).mean()) == pytest.approx(np.sqrt(2) * sigma, rel=0.01)
    rms = np.sqrt(np.mean((frames[2:] - 2 * frames[1:-1] + frames[:-2]) ** 2))
    assert rms == pytest.approx(np.sqrt(6) * sigma, rel=0.01)
    gaussian = np.sqrt(6) * sigma * np.sqrt(2 / np.pi)
    assert second_diff(frames).mean() == pytest.approx(gaussian, rel=0.01)


def test_reversal_and_spatial_shuffling_change_nothing():
    rng = np.random.default_rng(1)
    frames = rng.random((6, 3, 8, 10), dtype=np.float32)
    shuffled = frames.reshape(6, 3, 80)[..., rng.permutation(80)].reshape(6, 3, 8, 10)
    for metric in (frame_diff, second_diff, frame_energy):
        np.testing.assert_allclose(metric(frames[::-1])[::-1], metric(frames), rtol=1e-12)
        np.testing.assert_allclose(metric(shuffled), metric(frames), rtol=1e-12)


def test_uint8_frames_score_as_their_float_values():
    frames = np.random.default_rng(2).integers(0, 256, (5, 3, 6, 7)).astype(np.uint8)
    floats = frames / np.float32(255)
    assert frame_diff(frames) == pytest.approx(frame_diff(floats), rel=1e-6)


@pytest.mark.parametrize("wrong", [255.0, -1.0, np.nan])
def test_float_frames_outside_the_range_are_refused(wrong):
    frames = np.full((3, 3, 4, 5), 0.5, dtype=np.float32)
    frames[1, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match=r"have to be in \[0, 1\]|NaN"):
        frame_diff(frames)


def test_luminance_flicker_of_alternation_on_a_ramp_is_its_amplitude():
    t = np.arange(64)
    pumping = 0.3 + 0.004 * t + 0.05 * (-1.0) ** t
    # The least-squares line picks up a little of the alternation: of the order 1 / T^2.
    assert luminance_flicker(pumping) == pytest.approx(0.05, rel=1e-3)


def pulse_frames(*, stride, drift, step, num_frames=17):
    """Every pair moves by `drift`, and by `step` more where a latent frame begins."""
    moves = np.full(num_frames - 1, drift)
    moves[::stride] += step
    return 0.1 + np.concatenate([[0], np.cumsum(moves)])


@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize(("drift", "step"), [(0.01, 0.02), (0.02, -0.01), (0.0, 0.05)])
def test_stride_pulse_is_the_contrast_of_boundary_and_inner_energy(
    spatially_constant, stride, drift, step
):
    frames = spatially_constant(pulse_frames(stride=stride, drift=drift, step=step))
    boundary, inner = (drift + step) ** 2, drift**2
    expected = (boundary - inner) / (boundary + inner)
    # Squares of float32 differences of about 0.01: relative error of about 1e-5.
    assert stride_pulse(frame_energy(frames), stride=stride) == pytest.approx(expected, abs=1e-4)


def test_stride_pulse_is_zero_for_even_motion_and_for_a_still_clip(spatially_constant):
    even = frame_energy(spatially_constant(np.linspace(0, 1, 17)))
    assert stride_pulse(even, stride=4) == pytest.approx(0, abs=1e-5)
    assert stride_pulse(np.zeros(16), stride=4) == 0


def test_stride_pulse_ignores_a_slow_change_of_speed():
    energy = np.linspace(1, 3, 16)
    assert abs(stride_pulse(energy, stride=4)) < 0.02
    assert stride_pulse(energy * np.where(np.arange(16) % 4 == 0, 3, 1), stride=4) > 0.45


def test_stride_pulse_at_another_stride_sees_less():
    energy = np.where(np.arange(24) % 4 == 0, 3.0, 1.0)
    assert stride_pulse(energy, stride=4) == pytest.approx(0.5)
    assert abs(stride_pulse(energy, stride=3)) < 0.25


def test_stride_pulse_leaves_unknown_pairs_out():
    energy = [3.0, 1.0, None, 1.0] * 4
    assert stride_pulse(energy, stride=4) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="3 frames or more"):
        stride_pulse([1.0], stride=4)
    with pytest.raises(ValueError, match="stride is 1"):
        stride_pulse(energy, stride=1)
