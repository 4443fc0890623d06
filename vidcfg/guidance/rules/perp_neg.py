"""Perp-Neg: a negative prompt that cannot cancel the prompt."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import Method, Rows, is_off, required_by


@dataclass(frozen=True)
class PerpNeg(Method):
    """Use only the part of the negative direction that is perpendicular to the prompt's.

        d = cond - uncond,  n = negative - uncond,  perp = n - (<n, d> / <d, d>) d
        guided_f = uncond_f + strength_f (d_f - negative_scale w_f perp_f)

    w_f is the frame weight, 0 for every frame on a step outside an interval schedule.
    `negative_scale` 0 is plain guidance against the empty prompt (off). The inner products are per
    sample and per group of frames, never over the batch. Where d is zero the projection is zero,
    never NaN.

    Source: Armandpour et al. 2023, arXiv:2304.04968.
    """

    negative_scale: float = 1.0
    name: ClassVar[str] = "perp_neg"
    branches: ClassVar[tuple[str, ...]] = ("cond", "uncond", "negative")
    needs_gram: ClassVar[bool] = True

    def sources(self) -> dict[str, str]:
        return {"uncond": "empty", "negative": "negative"}

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"cond": strength, "negative": -self.negative_scale * weight * strength}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        deltas = self.deltas(strength_F, weight_F)
        if np.any(deltas["negative"] != 0):
            return frozenset(self.branches)
        return required_by(deltas)

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        deltas = self.deltas(strength_BF, weight_BF)
        direction = ("cond", "uncond")
        along = gram.difference_dot(("negative", "uncond"), direction)
        length = gram.difference_dot(direction, direction)
        share = np.divide(along, length, out=np.zeros_like(along), where=length > 0)
        moved = deltas | {"cond": deltas["cond"] - deltas["negative"] * share}
        return Combination("uncond", None, moved, is_off(deltas))
