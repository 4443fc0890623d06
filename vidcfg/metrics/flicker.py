"""Flicker without weights: differences, luminance, temporal spectrum, stride pulse.

Frames are [T, C, H, W], uint8 or float32 in [0, 1]; values are intensities in [0, 1]. Means are
over pixels and channels, in float64.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vidcfg.metrics.frames import to_unit


def change(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Mean absolute and mean squared difference of two frames of one shape, in [0, 1]."""
    difference = to_unit(second) - to_unit(first)
    squared = float(np.mean(difference * difference, dtype=np.float64))
    return float(np.mean(np.abs(difference), dtype=np.float64)), squared


def second_change(first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> float:
    """Mean absolute second difference of three frames, in [0, 1]."""
    first, middle, last = (to_unit(frame) for frame in (first, middle, last))
    return float(np.mean(np.abs((last + first) - 2 * middle), dtype=np.float64))


def frame_diff(frames: np.ndarray) -> Float[np.ndarray, "pairs"]:
    """Mean |x_{t+1} - x_t| for every pair of neighbours.

    Reacts to everything that changes, motion included: a clean pan scores worse than real flicker.
    """
    pairs = zip(frames[:-1], frames[1:])
    return np.array([change(a, b)[0] for a, b in pairs], dtype=np.float64)


def frame_energy(frames: np.ndarray) -> Float[np.ndarray, "pairs"]:
    """Mean (x_{t+1} - x_t)^2 for every pair of neighbours."""
    pairs = zip(frames[:-1], frames[1:])
    return np.array([change(a, b)[1] for a, b in pairs], dtype=np.float64)


def second_diff(frames: np.ndarray) -> Float[np.ndarray, "triples"]:
    """Mean |x_{t+1} - 2 x_t + x_{t-1}| for every inner frame; linear fades cancel."""
    triples = zip(frames[:-2], frames[1:-1], frames[2:])
    return np.array([second_change(*three) for three in triples], dtype=np.float64)


def vbench_temporal_flickering(frames: np.ndarray) -> float:
    """1 - mean |x_{t+1} - x_t| on 8-bit levels, 1 = still.

    VBench's formula without its static filter (which needs RAFT), so leaderboard numbers are
    another quantity.

    Raises:
        ValueError: below two frames.

    Source: Huang et al. 2024, arXiv:2311.17982.
    """
    if len(frames) < 2:
        raise ValueError("temporal flickering needs two frames or more.")
    return 1.0 - float(np.mean(frame_diff(to_levels(frames))))


def to_levels(frames: np.ndarray) -> np.ndarray:
    """Uint8 levels of frames in [0, 1], rounded to the nearest."""
    if frames.dtype == np.uint8:
        return frames
    return np.rint(to_unit(frames) * np.float32(255)).astype(np.uint8)


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
