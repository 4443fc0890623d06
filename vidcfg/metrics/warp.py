"""Flicker with motion taken out: what is left after the next frame is moved onto this one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from vidcfg.metrics.flow import MIN_COVERAGE, Pair
from vidcfg.metrics.frames import to_unit


@dataclass(frozen=True)
class Residual:
    """Mean |W(x_b) - x_a| and its square over the pixels (each channel counts once) seen in both.

    Both are None where less than half of the frame is seen in both.
    """

    absolute: float | None
    squared: float | None
    coverage: float


def residual(pair: Pair) -> Residual:
    """The motion-compensated difference of a pair."""
    return masked_residual(to_unit(pair.first), pair.warped, pair.is_visible)


def masked_residual(
    first: Float[np.ndarray, "C H W"],
    warped: Float[np.ndarray, "C H W"],
    is_visible: Bool[np.ndarray, "H W"],
) -> Residual:
    """The difference of a frame and the next one moved onto it, over visible pixels."""
    coverage = float(is_visible.mean())
    if coverage < MIN_COVERAGE:
        return Residual(None, None, coverage)
    difference = (warped - first)[:, is_visible]
    return Residual(
        float(np.mean(np.abs(difference), dtype=np.float64)),
        float(np.mean(difference * difference, dtype=np.float64)),
        coverage,
    )


def warp_residual(frames: np.ndarray, *, lag: int = 1) -> list[Residual]:
    """Residuals of the pairs (t, t + lag).

    Neighbours overlap (lag 1); longer pairs are disjoint: t = 0, lag, 2 lag, ...
    """
    return [residual(Pair(frames[t], frames[t + lag])) for t in pair_starts(len(frames), lag)]


def pair_starts(num_frames: int, lag: int) -> range:
    """First frames of the pairs at that distance, without overlap beyond the shared frame."""
    return range(0, num_frames - lag, lag)


@dataclass(frozen=True)
class ClipResidual:
    """The clip's means over its measurable pairs, None if the clip is invalid, and why."""

    absolute: float | None
    squared: float | None
    coverage: float
    reason: str = ""


def clip_residual(residuals: list[Residual]) -> ClipResidual:
    """Mean over pairs; invalid if half of the pairs, or the mean coverage, is below one half.

    Raises:
        ValueError: without pairs.
    """
    if not residuals:
        raise ValueError("a warp residual needs two frames or more.")
    coverage = float(np.mean([r.coverage for r in residuals]))
    known = [r for r in residuals if r.absolute is not None]
    if coverage < MIN_COVERAGE or 2 * len(known) <= len(residuals):
        reason = (
            f"optical flow explains {coverage:.0%} of the pixels, {MIN_COVERAGE:.0%} are needed"
        )
        return ClipResidual(None, None, coverage, reason)
    absolute = float(np.mean([r.absolute for r in known]))
    return ClipResidual(absolute, float(np.mean([r.squared for r in known])), coverage)
