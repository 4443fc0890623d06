"""The weighted sum that every rule comes down to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from vidcfg.guidance.gram import differences_from
from vidcfg.guidance.layout import per_frame


@dataclass(frozen=True, eq=False)
class Combination:
    """Coefficients of the branch predictions, written from a base branch.

        guided_f = factor_f * (gain_f * p_base + sum_b delta_fb * (p_b - p_base))

    Written this way and not as `sum_b a_b p_b`, because with one delta it is
    `uncond + s * (cond - uncond)` in the very operations of the stock pipelines, hence the same
    bits. A gain or factor of None is exactly 1. `off_BF` marks the frames that return `cond` bit
    for bit, untouched by any limit.
    """

    base: str
    gain_BF: Float64[np.ndarray, "B F"] | None
    delta_BF: dict[str, Float64[np.ndarray, "B F"]]
    off_BF: Bool[np.ndarray, "B F"]
    factor_BF: Float64[np.ndarray, "B F"] | None = None

    def coefficients(self, branches: tuple[str, ...]) -> Float64[np.ndarray, "B F V"]:
        """The coefficients on the vectors of a `Gram` with these branches."""
        gain = np.ones(self.off_BF.shape) if self.gain_BF is None else self.gain_BF
        columns = [gain if b == self.base else self.delta_BF[b] for b in branches]
        factor = 1.0 if self.factor_BF is None else self.factor_BF[..., None]
        return factor * np.stack(columns, axis=-1)

    def scaled(self, factor_BF: Float64[np.ndarray, "B F"]) -> "Combination":
        """This combination multiplied by one factor per frame."""
        known = 1.0 if self.factor_BF is None else self.factor_BF
        return replace(self, factor_BF=known * factor_BF)


def combine(
    predictions: Mapping[str, Float[Any, "B F ..."]],
    combination: Combination,
    *,
    differences: dict[str, Float[Any, "B F ..."]] | None = None,
) -> Float[Any, "B F ..."]:
    """The guided prediction, a new (B, F, ...) tensor in the dtype of the predictions.

    Each operation is rounded to that dtype as the stock pipelines do: for bfloat16 predictions the
    products are taken in float32 and rounded, which is what a Python scalar times a tensor does.
    A frame marked off is a copy of `cond`. `differences` from the base branch are used where they
    are at hand; they are overwritten.
    """
    base = predictions[combination.base]
    if differences is None:
        differences = differences_from(combination.base, predictions)
    guided = base if combination.gain_BF is None else _scale(base.clone(), combination.gain_BF)
    for branch, delta in combination.delta_BF.items():
        guided = _scale(differences[branch], delta).add_(guided)
    if combination.factor_BF is not None:
        guided = _scale(guided, combination.factor_BF)
    return keep_off_frames(guided, predictions, combination)


def keep_off_frames(guided: Any, predictions: Mapping[str, Any], combination: Combination) -> Any:
    """`guided` with the frames that are off overwritten by a copy of `cond`."""
    if combination.off_BF.any():
        samples, frames = (index.tolist() for index in np.nonzero(combination.off_BF))
        guided[samples, frames] = predictions["cond"][samples, frames]
    return guided


def _scale(frames: Any, values_BF: np.ndarray) -> Any:
    """`frames` multiplied in place by one number per frame, held in float32 or better."""
    import torch

    wide = torch.promote_types(frames.dtype, torch.float32)
    values = torch.from_numpy(np.ascontiguousarray(values_BF)).to(wide).to(frames.device)
    return frames.mul_(per_frame(values, frames))
