import numpy as np
import pytest
from clip_metrics import one_record, value_of

from vidcfg.metrics.flicker import TemporalSpectrum, distances_of, periodic_hann, temporal_spectrum


def hf_share(frames):
    return value_of("hf_share", frames)


def flat_spectrum(frames):
    return temporal_spectrum(distances_of(frames), np.ones(len(frames)))


def by_transforms(frames, window):
    """The power of every bin, by a transform of every pixel."""
    pixels = frames.reshape(len(frames), -1).astype(np.float64)
    waves = np.fft.rfft((pixels - pixels.mean(axis=0)) * window[:, None], axis=0)
    power = (np.abs(waves) ** 2).mean(axis=1) / (len(frames) * (window**2).sum())
    power[1 : (len(frames) + 1) // 2] *= 2
    return np.fft.rfftfreq(len(frames)), power


def test_quarter_frequency_has_all_power_in_its_bin(sinusoid):
    frequency, power = flat_spectrum(sinusoid(1 / 4))
    assert frequency[8] == 0.25
    # Float32 input: amplitude 0.1 is recovered to about 1e-7.
    assert np.sqrt(2 * power[8]) == pytest.approx(0.1, abs=1e-6)
    assert np.delete(power, 8).max() < 1e-12


@pytest.mark.parametrize("num_frames", [16, 17])
def test_powers_sum_to_the_variance(num_frames):
    frames = np.random.default_rng(0).random((num_frames, 3, 6, 5), dtype=np.float32)
    _, power = flat_spectrum(frames)
    variance = frames.astype(np.float64).var(axis=0).mean()
    # Differences are taken in float32.
    assert power.sum() == pytest.approx(variance, rel=1e-8)


@pytest.mark.parametrize("num_frames", [9, 16])
def test_power_by_distances_of_frames_is_that_by_transforms_of_pixels(num_frames):
    levels = np.random.default_rng(1).integers(0, 256, (num_frames, 3, 6, 5), dtype=np.uint8)
    window = periodic_hann(num_frames)
    frequency, power = temporal_spectrum(distances_of(levels), window)
    expected_frequency, expected = by_transforms(levels / 255, window)
    assert np.array_equal(frequency, expected_frequency)
    # Sums of levels are exact.
    np.testing.assert_allclose(power, expected, rtol=1e-10, atol=1e-14)


def test_hann_window_keeps_the_total_power_of_noise():
    frames = np.random.default_rng(0).random((32, 1, 64, 64), dtype=np.float32)
    _, flat = flat_spectrum(frames)
    _, hann = temporal_spectrum(distances_of(frames), periodic_hann(32))
    # The mean is taken off before the window, which removes a little more of it.
    assert hann[1:].sum() == pytest.approx(flat[1:].sum(), rel=0.05)


def test_alternation_is_all_fast_and_a_slow_wave_is_not(sinusoid):
    assert hf_share(sinusoid(1 / 2, phase=np.pi / 2)) == pytest.approx(1, abs=1e-6)
    # One cycle in the clip; the Hann window leaks to the next bin only.
    assert hf_share(sinusoid(1 / 32)) < 1e-6


def test_white_noise_has_its_share_of_bins():
    frames = np.random.default_rng(3).random((32, 1, 48, 48), dtype=np.float32)
    # Bins 8..15 count twice, bin 16 once, of 1..15 twice and 16 once: 17 of 31, less what the
    # window takes from bin 1.
    assert hf_share(frames) == pytest.approx(17 / 31, abs=0.02)


def test_clip_without_change_has_no_share_and_a_short_one_is_an_error():
    still = one_record("hf_share", np.full((9, 3, 4, 5), 77, dtype=np.uint8))
    assert (still.value, still.status) == (None, "invalid")
    assert still.skipped_reason == "nothing changes in the clip"
    with pytest.raises(ValueError, match="8 frames"):
        hf_share(np.zeros((7, 3, 4, 5), dtype=np.uint8))


@pytest.mark.parametrize(("num_frames", "segments"), [(31, 1), (32, 1), (33, 2), (48, 2), (49, 3)])
def test_long_clips_are_cut_into_overlapping_segments_that_end_with_the_clip(num_frames, segments):
    frames = np.random.default_rng(4).random((num_frames, 1, 4, 5), dtype=np.float32)
    spectrum = TemporalSpectrum()
    for frame in frames:
        spectrum.append(frame)
    share = spectrum.high_share()
    starts = [0, *range(16, num_frames - 31, 16)]
    starts += [num_frames - 32] if num_frames > 32 and starts[-1] != num_frames - 32 else []
    assert len(starts) == segments
    fast = total = 0.0
    for start in starts:
        segment = frames[start : start + 32]
        frequency, power = by_transforms(segment, periodic_hann(len(segment)))
        fast, total = fast + power[frequency >= 0.25].sum(), total + power[1:].sum()
    assert share == pytest.approx(fast / total, rel=1e-7)
