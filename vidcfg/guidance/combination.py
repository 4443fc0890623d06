"""The weighted sum that every rule comes down to."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vidcfg.guidance.layout import per_frame


@dataclass(frozen=True)
class Combination:
    """Coefficients of the branch predictions, written from a base branch.

        guided_f = gain_f * p_base + sum_b delta_fb * (p_b - p_base)

    Written this way and not as `sum_b a_b p_b`, because with one delta and gain 1 it is
    `uncond + s * (cond - uncond)` in the very operations of the stock pipelines, hence the same bits.
    A gain of None is exactly 1. `off_BF` marks the frames that return `cond` bit for bit, untouched by any limit.
    """

    base: str
    gain_BF: Float[Tensor, "B F"] | None
    delta_BF: dict[str, Float[Tensor, "B F"]]
    off_BF: Bool[Tensor, "B F"]

    def absolute(self, branches: tuple[str, ...]) -> Float[Tensor, "B F V"]:
        """The plain coefficients a_b of `sum_b a_b p_b`, in the order of `branches`."""
        deltas = sum(self.delta_BF.values())
        base = (1 if self.gain_BF is None else self.gain_BF) - deltas
        columns = [base if b == self.base else self.delta_BF[b] for b in branches]
        return torch.stack(columns, dim=-1)

    def scaled(self, factor_BF: Float[Tensor, "B F"]) -> "Combination":
        """This combination multiplied by one factor per frame."""
        deltas = {
            branch: delta.to(factor_BF.device) * factor_BF for branch, delta in self.delta_BF.items()
        }
        gain = factor_BF if self.gain_BF is None else self.gain_BF * factor_BF
        return replace(self, gain_BF=gain, delta_BF=deltas)


def combine(predictions: dict[str, Tensor], combination: Combination) -> Tensor:
    """The guided prediction, a (B, F, ...) tensor in the dtype of the predictions.

    Each operation is rounded to that dtype as the stock pipelines do: for bfloat16 predictions the
    products are taken in float32 and rounded, which is what a Python scalar times a tensor does.
    A frame marked off is a copy of `cond`.
    """
    base = predictions[combination.base]
    guided = base if combination.gain_BF is None else _times(combination.gain_BF, base)
    for branch, delta in combination.delta_BF.items():
        guided = guided + _times(delta, predictions[branch] - base)
    return keep_off_frames(guided, predictions, combination)


def keep_off_frames(
    guided: Tensor, predictions: dict[str, Tensor], combination: Combination
) -> Tensor:
    """`guided` with the frames that are off replaced by a copy of `cond`."""
    if bool(combination.off_BF.any()):
        off = per_frame(combination.off_BF.to(guided.device), guided)
        guided = torch.where(off, predictions["cond"], guided)
    return guided


def _times(factor_BF: Tensor, frames: Tensor) -> Tensor:
    factor = per_frame(factor_BF.to(device=frames.device, dtype=torch.float32), frames)
    if frames.dtype == torch.float64:
        return per_frame(factor_BF.to(frames.device), frames) * frames
    return (factor * frames).to(frames.dtype)
