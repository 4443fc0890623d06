"""Flicker without weights: differences, luminance, temporal spectrum, stride pulse.

Values are intensities in [0, 1]; means are over pixels and channels, in float64.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from vidcfg.media.video import to_uint8
from vidcfg.metrics.flow import Pair
from vidcfg.metrics.frames import light, mean_size, mean_square
from vidcfg.metrics.metric import Quantity, computed, mean_metric, metric

SEGMENT = 32
MIN_FRAMES = 8
CUTOFF = 0.25

STILL = 1e-4
"""A mean change below this, a fortieth of an 8-bit level, is no change."""


CHANGE = Quantity(lambda pair: pair.change, lag=1)
LIGHT = Quantity(light)


@mean_metric("frame_diff", "flicker", "intensity", "lower", "range=0..1", lag=1, marks_still=True)
def frame_diff(pair: Pair) -> float:
    """Mean |x_{t+1} - x_t| of neighbours.

    Reacts to everything that changes, motion included: a clean pan scores worse than real flicker.
    """
    return pair.change[0]


@mean_metric("second_diff", "flicker", "intensity", "lower", "range=0..1", lag=2, marks_still=True)
def second_diff(triple: Pair) -> float:
    """Mean |x_{t+1} - 2 x_t + x_{t-1}| of inner frames; linear fades cancel."""
    before, after = triple.halves
    return mean_size(after.difference, before.difference)


@mean_metric(
    *("vbench_temporal_flickering", "flicker", "0..1", "higher", "levels=8bit;no-static-filter"),
    lag=1,
    marks_still=True,
)
def vbench_temporal_flickering(pair: Pair) -> float:
    """1 - mean |x_{t+1} - x_t| on 8-bit levels, 1 = still.

    VBench's formula without its static filter (which needs RAFT), so leaderboard numbers are
    another quantity.

    Source: Huang et al. 2024, arXiv:2311.17982.
    """
    if pair.first.dtype == np.uint8:
        return 1 - pair.change[0]
    return 1 - mean_size(to_uint8(pair.first), to_uint8(pair.second))


@metric(
    *("luminance_flicker", "flicker", "intensity", "lower"),
    *("luma=bt709;detrend=linear", [LIGHT]),
    marks_still=True,
)
def of_luminance(clip: Any) -> dict:
    levels = [light.mean for light in clip[LIGHT]]
    return computed(luminance_flicker, levels, n=len(levels), trace=tuple(levels))


def luminance_flicker(luma_T: Sequence[float] | np.ndarray) -> float:
    """Standard deviation over time of the frames' mean luma, its linear trend taken off.

    Sees the whole picture pumping; blind to flicker that cancels over the frame. A linear fade
    gives 0.

    Raises:
        ValueError: below three frames (any two lie on their trend).
    """
    luma_T = np.asarray(luma_T, dtype=np.float64)
    if len(luma_T) < 3:
        raise ValueError("luminance flicker needs three frames or more.")
    return float(np.std(luma_T - trend(luma_T)))


def trend(values_T: np.ndarray) -> Float[np.ndarray, "T"]:
    """The least-squares line through values at t = 0, 1, ..."""
    time = np.arange(len(values_T), dtype=np.float64)
    time -= time.mean()
    norm = float(time @ time)
    slope = float(time @ (values_T - np.mean(values_T))) / norm if norm else 0.0
    return np.mean(values_T) + slope * time


def distances_of(
    frames: Sequence[np.ndarray] | np.ndarray, known_SS: Float[np.ndarray, "S S"] | None = None
) -> Float[np.ndarray, "T T"]:
    """Mean squared difference of all frames, of which the first S may know theirs."""
    known_SS = np.zeros((0, 0)) if known_SS is None else known_SS
    found = np.pad(known_SS, (0, len(frames) - len(known_SS)))
    for t in range(len(known_SS), len(frames)):
        for s in range(t):
            found[s, t] = found[t, s] = mean_square(frames[s], frames[t])
    return found


def temporal_spectrum(
    distances_TT: Float[np.ndarray, "T T"], window_T: np.ndarray
) -> tuple[Float[np.ndarray, "bins"], Float[np.ndarray, "bins"]]:
    """Frequencies in cycles per frame, and the one-sided power of each, averaged over pixels.

    Each pixel's mean is taken off first. With a window of ones the powers of frequencies above 0
    sum to the mean variance, and a sinusoid of amplitude A on a bin has power A^2 / 2; a periodic
    Hann window leaks into the two neighbouring bins and is scaled to the same total for noise.

    How far frames are from each other (`distances_of`) is all that it takes: with each pixel's
    mean over time taken off, frames s and t have the product
        x_s · x_t = (mean_u d_su + mean_u d_ut - d_st - mean d) / 2,   d_st = |x_s - x_t|^2
    and the power of a wave over all pixels is what it has in these.
    """
    num_frames = len(distances_TT)
    means = distances_TT.mean(axis=0)
    products = (means[:, None] + means - distances_TT - means.mean()) / 2
    waves = np.fft.rfft(np.diag(window_T), axis=0)
    power = np.einsum("kt,ts,ks->k", waves, products, waves.conj()).real
    power /= num_frames * float(window_T @ window_T)
    power[1 : (num_frames + 1) // 2] *= 2
    return np.fft.rfftfreq(num_frames), np.maximum(power, 0)


def periodic_hann(num: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(num) / num)


class TemporalSpectrum:
    """Welch's average over segments of 32 frames, 16 apart, fed frame by frame.

    A clip of 8 to 32 frames is one segment. The last segment ends with the last frame. Memory is
    bounded by one segment, whatever the length of the clip.
    """

    def __init__(self) -> None:
        self._frames: deque[np.ndarray] = deque(maxlen=SEGMENT)
        self.num_frames = self._since = 0
        self._fast = self._total = 0.0
        self._distances = np.zeros((0, 0))

    def append(self, frame: np.ndarray) -> None:
        self._frames.append(frame)
        self.num_frames += 1
        self._since += 1
        if len(self._frames) == SEGMENT and self._since >= SEGMENT // 2:
            self._segment()

    def high_share(self) -> float | None:
        """Power at 0.25 cycles per frame and above over all power above 0, in [0, 1].

        1 for pure alternation, near 0 for slow change; None if nothing changes.

        Raises:
            ValueError: below 8 frames.
        """
        if self.num_frames < MIN_FRAMES:
            raise ValueError(f"a temporal spectrum needs {MIN_FRAMES} frames or more.")
        if self._since:
            self._segment()
        return self._fast / self._total if self._total > 1e-15 else None

    def _segment(self) -> None:
        # Frames of the segment before are as far apart as they were.
        known = self._distances[self._since :, self._since :]
        self._distances = distances_of(self._frames, known)
        frequency, power = temporal_spectrum(self._distances, periodic_hann(len(self._frames)))
        self._fast += float(power[frequency >= CUTOFF].sum())
        self._total += float(power[1:].sum())
        self._since = 0


SPECTRUM = Quantity(lambda frame: frame, into=TemporalSpectrum)


@metric("hf_share", "flicker", "0..1", "lower", "welch=hann32,hop16;cutoff=0.25", [SPECTRUM])
def hf_share(clip: Any) -> dict:
    spectrum = clip[SPECTRUM]
    found = computed(spectrum.high_share, n=spectrum.num_frames)
    return {"reason": "nothing changes in the clip"} | found


@metric(
    *("stride_pulse", "flicker", "-1..1", "none"),
    *("energy=squared;neighbours=stride-1", [CHANGE]),
    marks_still=True,
)
def of_changes(clip: Any) -> dict:
    energy, stride = tuple(squared for _, squared in clip[CHANGE]), clip.stride
    # Latent frames are those of the clip, wherever a shot begins.
    pairs = (None,) * (clip.start % stride) + energy
    rest = {"n": len(energy), "protocol": f"stride={stride}", "trace": energy}
    return computed(lambda: stride_pulse(pairs, stride=stride), **rest)


def stride_pulse(energy_pairs: Sequence[float | None] | np.ndarray, *, stride: int) -> float:
    """How much more the video changes where one latent frame ends and the next begins.

        pulse = (B - I) / (B + I)

    B is the mean change at the boundaries of a causal VAE of that temporal stride (pairs t, t + 1
    with t a multiple of the stride), I the mean over boundaries of the mean change of the up to
    stride - 1 pairs on each side. 0: no mark; 1: everything changes at boundaries; below 0: less
    changes there. `energy_pairs` is the squared change per pair, None where it is unknown. A
    boundary without known neighbours is left out; a clip in which nothing changes gives 0.

    Raises:
        ValueError: if the stride is below 2, or no boundary has a known neighbour.
    """
    if stride < 2:
        raise ValueError(f"stride is {stride}; a pulse exists at a temporal stride of 2 or more.")
    energy = np.array([np.nan if e is None else e for e in energy_pairs], dtype=np.float64)
    at_boundary, around = [], []
    for t in range(0, len(energy), stride):
        inner = np.concatenate([energy[max(0, t - stride + 1) : t], energy[t + 1 : t + stride]])
        inner = inner[~np.isnan(inner)]
        if len(inner) and not np.isnan(energy[t]):
            at_boundary.append(energy[t])
            around.append(inner.mean())
    if not at_boundary:
        raise ValueError(
            f"a stride pulse of {stride} needs 3 frames or more that can be compared."
        )
    boundary, inner = float(np.mean(at_boundary)), float(np.mean(around))
    total = boundary + inner
    return (boundary - inner) / total if total > 0 else 0.0
