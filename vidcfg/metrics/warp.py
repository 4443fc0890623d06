"""Flicker with motion taken out: what is left after the next frame is moved onto this one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from vidcfg.metrics.flicker import pulse
from vidcfg.metrics.flow import FLOW_PROTOCOL, MIN_COVERAGE, MIN_SIZE, Pair
from vidcfg.metrics.frames import to_unit
from vidcfg.metrics.metric import Quantity, declare, metric


@dataclass(frozen=True)
class Residual:
    """Mean |W(x_b) - x_a| and its square over the pixels (each channel counts once) seen in both.

    Both are None where less than half of the frame is seen in both. Of a clip, the means over its
    measurable pairs, None with the reason if the clip is invalid.
    """

    absolute: float | None
    squared: float | None
    coverage: float
    reason: str = ""


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


def clip_residual(residuals: Sequence[Residual]) -> Residual:
    """Mean over one or more pairs; invalid if half of them, or the mean coverage, is below 0.5."""
    coverage = float(np.mean([r.coverage for r in residuals]))
    known = [r for r in residuals if r.absolute is not None]
    if coverage < MIN_COVERAGE or 2 * len(known) <= len(residuals):
        reason = (
            f"optical flow explains {coverage:.0%} of the pixels, {MIN_COVERAGE:.0%} are needed"
        )
        return Residual(None, None, coverage, reason)
    absolute = float(np.mean([r.absolute for r in known]))
    return Residual(absolute, float(np.mean([r.squared for r in known])), coverage)


def residual(pair: Pair) -> Residual:
    """The motion-compensated difference of a pair."""
    return masked_residual(to_unit(pair.first), pair.warped, pair.is_visible)


RESIDUALS = {lag: Quantity(residual, lag, step=lag, least=MIN_SIZE) for lag in (1, 2, 4, 8)}
"""By lag. Neighbours overlap; longer pairs share no more than a frame."""


def outcome(clip: Any, lag: int = 1, *, which: str = "absolute") -> dict[str, Any]:
    """`which` of the clip's residual over pairs at that distance."""
    residuals = clip[RESIDUALS[lag]]
    if residuals:
        found = clip_residual(residuals)
    else:
        few = f"the clip has fewer than {lag + 1} frames"
        found = Residual(None, None, 0.0, clip.too_small(RESIDUALS[lag]) or few)
    made = {"value": getattr(found, which), "n": sum(r.absolute is not None for r in residuals)}
    made |= {"reason": found.reason, "extra": {"coverage": found.coverage}}
    if found.absolute is None:
        made["status"] = "invalid" if residuals else "skipped"
    return made


@metric("warp_residual", "warp", "intensity", "lower", FLOW_PROTOCOL, [RESIDUALS[1]])
def of_neighbours(clip: Any) -> dict[str, Any]:
    return outcome(clip) | {"trace": tuple(r.absolute for r in clip[RESIDUALS[1]])}


@metric("warp_error", "warp", "intensity^2", "lower", FLOW_PROTOCOL, [RESIDUALS[1]])
def squared_of_neighbours(clip: Any) -> dict[str, Any]:
    return outcome(clip, which="squared")


@metric("warp_stride_pulse", "warp", "-1..1", "none", FLOW_PROTOCOL, [RESIDUALS[1]])
def pulse_of_neighbours(clip: Any) -> dict[str, Any]:
    found, squared = outcome(clip), [r.squared for r in clip[RESIDUALS[1]]]
    return found if found["value"] is None else pulse(squared, clip.stride, extra=found["extra"])


for _lag in (2, 4, 8):
    _facts = (f"long_warp_{_lag}", "warp", "intensity", "lower", FLOW_PROTOCOL + ";pairs=disjoint")
    declare(*_facts, [RESIDUALS[_lag]], outcome=partial(outcome, lag=_lag))
