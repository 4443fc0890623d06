"""How much moves, how evenly, and where a clip freezes or jumps."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from vidcfg.metrics.flow import Pair, warp
from vidcfg.metrics.frames import to_unit

STILL = 1e-4
"""A mean change below this, a fortieth of an 8-bit level, is no change."""


def motion_of(flow_HW2: Float[np.ndarray, "H W 2"], *, fps: int | float) -> float:
    """Mean of the largest 5 % flow magnitudes, as pixels per 1/8 s on a 256-pixel shorter side.

    Camera and object motion are not told apart.
    """
    magnitude = np.hypot(flow_HW2[..., 0], flow_HW2[..., 1]).ravel()
    top = max(1, round(0.05 * magnitude.size))
    largest = np.partition(magnitude, magnitude.size - top)[magnitude.size - top :]
    scale = 256 / min(flow_HW2.shape[:2]) * fps / 8
    return float(np.mean(largest, dtype=np.float64)) * scale


def motion_trace(frames: np.ndarray, *, fps: int | float) -> Float[np.ndarray, "pairs"]:
    """`motion_of` for every pair of neighbours; its mean is the dynamic degree."""
    pairs = zip(frames[:-1], frames[1:])
    return np.array([motion_of(Pair(a, b).forward, fps=fps) for a, b in pairs])


def midpoint_error(pair: Pair, middle: np.ndarray) -> float:
    """Mean |x - x'| of a frame and its interpolation from the frames before and after it.

    x' is the mean of both neighbours, each moved by half the flow between them. Small for motion
    at an even pace, large for judder, a repeated or a missing frame, and flicker.
    """
    half = pair.forward / 2
    before, _ = warp(pair.first, -half)
    after, _ = warp(pair.second, half)
    return float(np.mean(np.abs((before + after) / 2 - to_unit(middle)), dtype=np.float64))


def motion_smoothness(frames: np.ndarray) -> float:
    """1 - mean midpoint error over frames 1, 3, 5, ...

    VBench's idea with optical flow in place of its interpolation net, so another number.

    Raises:
        ValueError: below three frames.
    """
    if len(frames) < 3:
        raise ValueError("motion smoothness needs three frames or more.")
    triples = zip(frames[:-2:2], frames[1:-1:2], frames[2::2])
    return 1.0 - float(np.mean([midpoint_error(Pair(a, c), b) for a, b, c in triples]))


def frozen(change_pairs: Sequence[float] | np.ndarray) -> Bool[np.ndarray, "pairs"]:
    """Pairs whose frames are the same in a clip that otherwise changes.

    A pair is frozen if its mean change is below a tenth of the median of all changes above
    0.0001. In a still clip every pair is.
    """
    change = np.asarray(change_pairs, dtype=np.float64)
    moving = change[change > STILL]
    limit = max(STILL, 0.1 * float(np.median(moving))) if len(moving) else np.inf
    return change < limit


def jumps(
    change_pairs: Sequence[float] | np.ndarray, motion_pairs: Sequence[float | None] | np.ndarray
) -> Bool[np.ndarray, "pairs"]:
    """Pairs across which something is missing: a dropped frame, a cut, a pop.

    Against the upper quartile of up to three pairs on each side, a pair jumps if its motion is
    more than 1.6 times as large (a dropped frame doubles it) or its change more than 3 times as
    large and above 0.02. Where the flow cannot be trusted, motion is None; a pair without it among
    neighbours that all have it jumps as well.
    """
    change = np.asarray(change_pairs, dtype=np.float64)
    motion = np.array([np.nan if m is None else m for m in motion_pairs], dtype=np.float64)
    found = np.zeros(len(change), dtype=bool)
    for t in range(len(change)):
        near = [i for i in range(max(0, t - 3), min(len(change), t + 4)) if i != t]
        usual_change = float(np.quantile(change[near], 0.75)) if near else np.inf
        known = motion[near][~np.isnan(motion[near])]
        usual_motion = float(np.quantile(known, 0.75)) if len(known) >= 2 else np.inf
        popped = change[t] > max(3 * usual_change, 0.02)
        moved = motion[t] > 1.6 * max(usual_motion, 0.5)
        lost = np.isnan(motion[t]) and len(known) == len(near) >= 2
        found[t] = popped or moved or lost
    return found
