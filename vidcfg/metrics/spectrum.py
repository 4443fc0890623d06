"""Temporal power spectrum of pixels: how much of the change is fast."""

from collections import deque

import numpy as np
from jaxtyping import Float

from vidcfg.metrics.frames import to_unit

SEGMENT = 32
MIN_FRAMES = 8
CUTOFF = 0.25


def temporal_spectrum(
    frames: np.ndarray, *, window: str = "hann"
) -> tuple[Float[np.ndarray, "bins"], Float[np.ndarray, "bins"]]:
    """Frequencies in cycles per frame, and the one-sided power of each, averaged over pixels.

    Each pixel's mean is taken off first. With `window="none"` the powers of frequencies above 0
    sum to the mean variance, and a sinusoid of amplitude A on a bin has power A^2 / 2;
    `window="hann"` (periodic Hann) leaks into the two neighbouring bins and is scaled to the same
    total for noise.
    """
    num_frames = len(frames)
    pixels = frames.reshape(num_frames, -1)
    shape = np.ones(num_frames)
    if window == "hann":
        shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(num_frames) / num_frames)
    elif window != "none":
        raise ValueError(f"window is {window!r}, allowed are 'hann' and 'none'.")
    power = np.zeros(num_frames // 2 + 1)
    # Blocks of pixels keep floats and spectrum of a large frame out of memory.
    for start in range(0, pixels.shape[1], 1 << 16):
        block = to_unit(pixels[:, start : start + (1 << 16)]).astype(np.float64)
        block = (block - block.mean(axis=0)) * shape[:, None]
        power += (np.abs(np.fft.rfft(block, axis=0)) ** 2).sum(axis=1)
    power /= pixels.shape[1] * num_frames * float(shape @ shape)
    power[1 : (num_frames + 1) // 2] *= 2
    return np.fft.rfftfreq(num_frames), power


class TemporalSpectrum:
    """Welch's average over segments of 32 frames, 16 apart, fed frame by frame.

    A clip of 8 to 32 frames is one segment. The last segment ends with the last frame. Memory is
    bounded by one segment, whatever the length of the clip.
    """

    def __init__(self) -> None:
        self._frames: deque[np.ndarray] = deque(maxlen=SEGMENT)
        self._num_frames = self._since = self._num_segments = 0
        self._fast = self._total = 0.0

    def add(self, frame: np.ndarray) -> None:
        self._frames.append(frame)
        self._num_frames += 1
        self._since += 1
        full = len(self._frames) == SEGMENT
        if full and (self._num_segments == 0 or self._since == SEGMENT // 2):
            self._segment()

    def high_share(self) -> float | None:
        """Power at 0.25 cycles per frame and above over all power above 0; None if nothing
        changes.

        Raises:
            ValueError: below 8 frames.
        """
        if self._num_frames < MIN_FRAMES:
            raise ValueError(f"a temporal spectrum needs {MIN_FRAMES} frames or more.")
        if self._since:
            self._segment()
        return self._fast / self._total if self._total > 1e-15 else None

    def _segment(self) -> None:
        frequency, power = temporal_spectrum(np.stack(self._frames))
        self._fast += float(power[frequency >= CUTOFF].sum())
        self._total += float(power[1:].sum())
        self._num_segments += 1
        self._since = 0


def hf_share(frames: np.ndarray) -> float | None:
    """Share of the temporal power at 0.25 cycles per frame and above, in [0, 1].

    1 for pure alternation, near 0 for slow change; None for a clip in which nothing changes.

    Raises:
        ValueError: below 8 frames.
    """
    spectrum = TemporalSpectrum()
    for frame in frames:
        spectrum.add(frame)
    return spectrum.high_share()
