"""Perp-Neg: a negative prompt that cannot cancel the prompt."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.methods.base import branches_with_weight


@dataclass(frozen=True)
class PerpNeg:
    """Use only the part of the negative direction that is perpendicular to the prompt's.

        d = cond - uncond,  n = negative - uncond,  perp = n - (<n, d> / <d, d>) d
        guided_f = uncond_f + strength_f (d_f - negative_scale w_f perp_f)

    w_f is the frame weight. `negative_scale` 0 is plain guidance against the empty prompt (off). The
    inner products are per sample and per group of frames, never over the batch. Where d is zero the
    projection is zero, never NaN.

    Source: Armandpour et al. 2023, arXiv:2304.04968.
    """

    negative_scale: float = 1.0
    name: str = "perp_neg"
    branches: tuple[str, ...] = ("cond", "uncond", "negative")
    needs_gram: bool = True

    def sources(self) -> dict[str, str]:
        return {"uncond": "empty", "negative": "negative"}

    def required(self, strength_F: np.ndarray, weight_F: np.ndarray) -> frozenset[str]:
        negative = self.negative_scale * weight_F * strength_F
        if np.any(negative != 0):
            return frozenset(self.branches)
        return branches_with_weight({"cond": strength_F, "uncond": 1 - strength_F})

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float[Tensor, "B F"],
        weight_BF: Float[Tensor, "B F"],
    ) -> Combination:
        direction = ("cond", "uncond")
        along = gram.difference_dot(("negative", "uncond"), direction)
        length = gram.difference_dot(direction, direction)
        share_BG = torch.where(length > 0, along / length.clamp_min(1e-30), torch.zeros_like(length))
        strength, weight = strength_BF.to(share_BG), weight_BF.to(share_BG)
        negative = strength * self.negative_scale * weight
        off = (strength_BF == 1) & (self.negative_scale * weight_BF == 0)
        deltas = {"cond": strength + negative * share_BG, "negative": -negative}
        return Combination("uncond", None, deltas, off)
