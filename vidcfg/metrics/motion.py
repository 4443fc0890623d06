"""How much moves, how evenly, and where a clip freezes or jumps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from vidcfg.metrics.flicker import CHANGE, STILL
from vidcfg.metrics.flow import (
    FLOW_PROTOCOL,
    MASK_PROTOCOL,
    MIN_COVERAGE,
    MIN_SIZE,
    Pair,
    linear,
    places,
    resized,
)
from vidcfg.metrics.frames import mean_size
from vidcfg.metrics.metric import Quantity, averaged, mean_metric, metric
from vidcfg.metrics.shots import CUT_PROTOCOL


def motion_of(flow_HW2: Float[np.ndarray, "H W 2"], *, fps: int | float) -> float:
    """Mean of the largest 5 % flow magnitudes, as pixels per 1/8 s on a 256-pixel shorter side.

    Camera and object motion are not told apart.
    """
    magnitude = np.hypot(flow_HW2[..., 0], flow_HW2[..., 1]).ravel()
    top = max(1, round(0.05 * magnitude.size))
    largest = np.partition(magnitude, magnitude.size - top)[magnitude.size - top :]
    scale = 256 / min(flow_HW2.shape[:2]) * fps / 8
    return float(np.mean(largest, dtype=np.float64)) * scale


STRIP = 64
"""Rows that are interpolated at a time."""

MOTION = Quantity(lambda pair: motion_of(pair.step, fps=8), lag=1, least=MIN_SIZE)
SEEN = Quantity(lambda frame: None)
IS_TRUSTED = Quantity(lambda pair: pair.coverage >= MIN_COVERAGE, lag=1, least=MIN_SIZE)


@metric(
    *("dynamic_degree", "motion", "px", "none"),
    *(f"{FLOW_PROTOCOL};at=search;top=5%;side=256;fps=8", [MOTION]),
    marks_still=True,
)
def dynamic_degree(clip: Any) -> dict:
    """Mean motion of neighbours, proportional to the frame rate."""
    return averaged([m * (clip.fps / 8) for m in clip[MOTION]], reason=clip.too_small(MOTION))


@mean_metric(
    *("motion_smoothness", "motion", "0..1", "higher", f"{FLOW_PROTOCOL};interpolate=odd"),
    lag=2,
    step=2,
    least=MIN_SIZE,
    marks_still=True,
)
def smoothness(triple: Pair) -> float:
    """1 - mean |x - x'| of a frame and its interpolation from the frames before and after it.

    x' is the mean of both neighbours, each moved by half the flow between them. The error is small
    for motion at an even pace, large for judder, a repeated or a missing frame, and flicker; taken
    of frames 1, 3, 5, ... VBench's idea with flow in place of its net, so another number.
    """
    (first, last), (middle, _) = triple.views, triple.halves[1].views
    half, error = resized(triple.there / 2, *triple.first.shape[-2:]), 0.0
    # Strips of rows stay in the cache.
    for top in range(0, len(half), STRIP):
        rows = slice(top, top + STRIP)
        before = linear(first.rgb, *places(-half[rows], top=top))
        behind = linear(last.rgb, *places(half[rows], top=top))
        error += mean_size((before + behind) / 2, middle.rgb[rows]) * before.size
    return 1 - error / middle.rgb.size


@metric(
    "freeze_share", "motion", "0..1", "lower", "below=0.1*local-median", [CHANGE], marks_still=True
)
def freeze_share(clip: Any) -> dict:
    return averaged(frozen([absolute for absolute, _ in clip[CHANGE]]))


@metric(
    *("jump_share", "motion", "0..1", "lower"),
    f"{FLOW_PROTOCOL};{MASK_PROTOCOL};above=1.6*flow|3*change|flow-lost",
    [CHANGE, MOTION, IS_TRUSTED],
    marks_still=True,
)
def jump_share(clip: Any) -> dict:
    change = [absolute for absolute, _ in clip[CHANGE]]
    trusted = [m if ok else None for m, ok in zip(clip[MOTION], clip[IS_TRUSTED])]
    return averaged(jumps(change, trusted or [None] * len(change)))


@metric("cuts", "motion", "count", "none", CUT_PROTOCOL, [SEEN], of_shots="sum")
def cuts(clip: Any) -> dict:
    """How often another shot begins."""
    return {"value": float(clip.start > 0), "n": len(clip[SEEN])}


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
    """Pairs across which something is missing: a dropped frame, a pop.

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
