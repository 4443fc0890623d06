import colorsys

import numpy as np
import pytest
from clip_metrics import one_record

from vidcfg.metrics.appearance import clipped_share, contrast_drift, saturation, sharpness_pulse
from vidcfg.metrics.frames import light


def test_saturation_is_that_of_hsv():
    frame = np.random.default_rng(0).random((3, 6, 9), dtype=np.float32)
    expected = [colorsys.rgb_to_hsv(*pixel)[1] for pixel in frame.reshape(3, -1).T.tolist()]
    assert saturation(frame) == pytest.approx(np.mean(expected), abs=1e-6)


def test_gray_and_black_have_no_saturation_and_pure_red_has_all():
    assert saturation(np.zeros((3, 4, 5), dtype=np.uint8)) == 0
    assert saturation(np.full((3, 4, 5), 90, dtype=np.uint8)) == 0
    red = np.zeros((3, 4, 5), dtype=np.uint8)
    red[0] = 200
    assert saturation(red) == 1


def test_clipped_share_counts_values_at_both_ends():
    frame = np.full((3, 2, 5), 100, dtype=np.uint8)
    frame[0] = 255
    frame[1, 0] = 0
    assert clipped_share(frame) == 15 / 30
    assert clipped_share(np.full((3, 2, 5), 254, dtype=np.uint8)) == 0
    assert clipped_share(np.full((3, 2, 5), 1 / 255, dtype=np.float32)) == 0


@pytest.mark.parametrize("level", [0, 0.4, 0.6, 1, 254, 254.4, 254.6, 255])
def test_what_is_within_half_a_level_of_an_end_is_clipped_and_its_neighbour_is_not(level):
    ends = level < 0.5 or level > 254.5
    assert clipped_share(np.full((3, 2, 5), level / 255, dtype=np.float32)) == ends
    if level == int(level):
        assert clipped_share(np.full((3, 2, 5), level, dtype=np.uint8)) == ends


def test_sharpness_pulse_is_the_second_difference_of_the_log_without_half_a_level():
    half = 0.5 / 255
    steady = np.exp(0.3 * np.arange(5)) * 0.05 - half
    np.testing.assert_allclose(sharpness_pulse(steady), [0, 0, 0], atol=1e-12)
    pulse = steady.copy()
    pulse[2] = (pulse[2] + half) * np.e - half
    np.testing.assert_allclose(sharpness_pulse(pulse), [0.5, 1.0, 0.5], rtol=1e-12)


def test_contrast_is_the_spread_of_luma():
    frame = np.zeros((3, 4, 6), dtype=np.float32)
    frame[1, :, :3] = 1
    assert light(frame).contrast == pytest.approx(0.7152 / 2, abs=1e-6)


def test_sharpness_of_a_ramp_is_the_length_of_its_slope_and_blur_lowers_it():
    down, across = np.mgrid[:6, :9].astype(np.float32)
    ramp = (0.03 * down + 0.04 * across)[None].repeat(3, axis=0)
    assert light(ramp).sharpness == pytest.approx(0.05, abs=1e-6)
    assert light(np.full((3, 6, 9), 80, dtype=np.uint8)).sharpness == 0
    assert light(ramp[:, :1]).sharpness == 0
    edge = np.zeros((3, 6, 9), dtype=np.float32)
    edge[:, ::2] = 1
    assert light((edge[:, :-1] + edge[:, 1:]) / 2).sharpness < light(edge).sharpness


def test_contrast_ramp_is_its_log_ratio_and_a_flat_one_is_zero():
    assert contrast_drift(0.1 * np.geomspace(1, 2, 9)) == pytest.approx(np.log(2))
    assert contrast_drift(np.full(9, 0.2)) == pytest.approx(0, abs=1e-12)
    assert contrast_drift([0.2]) == 0
    assert np.isfinite(contrast_drift([0.0, 0.1, 0.2]))


def test_contrast_drift_does_not_depend_on_brightness():
    pattern = np.random.default_rng(1).random((3, 5, 7), dtype=np.float32) / 4
    gains = np.linspace(1, 1.5, 6, dtype=np.float32)
    dark = [light(pattern * gain).contrast for gain in gains]
    bright = [light(pattern * gain + np.float32(0.5)).contrast for gain in gains]
    assert contrast_drift(dark) == pytest.approx(contrast_drift(bright), abs=1e-5)


@pytest.mark.parametrize("way", [0.3, -0.3, 0.0])
def test_brightness_drift_is_the_way_of_luma_without_alternation(way):
    frames = np.random.default_rng(2).random((9, 3, 5, 7), dtype=np.float32)[:1] / 4 + 0.35
    alternation = 0.1 * (np.arange(9) % 2)
    steps = np.linspace(0, way, 9) + alternation
    found = one_record("brightness_drift", (frames + steps[:, None, None, None]).astype("f4"))
    assert found.value == pytest.approx(way, abs=1e-6)
    assert one_record("brightness_drift", frames).value == 0
