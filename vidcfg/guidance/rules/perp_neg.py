"""Perp-Neg: a negative prompt that cannot cancel the prompt."""

from typing import ClassVar

import numpy as np

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rule import Rows, Rule, ratio, rule
from vidcfg.settings.base import Number


@rule("perp_neg")
class PerpNeg(Rule):
    """Use only the part of the negative direction that is perpendicular to the prompt's.

        d = cond - uncond,  n = negative - uncond,  perp = n - (<n, d> / <d, d>) d
        guided_f = uncond_f + strength_f (d_f - negative_scale w_f perp_f)

    w_f is the frame weight, 0 for every frame on a step outside an interval schedule. At a scale
    of 1 it steers away from the negative prompt all the same. `negative_scale` 0 is plain guidance
    against the empty prompt (off). The inner products are per sample and per group of frames,
    never over the batch. Where d is zero the projection is zero, never NaN.

    Formula: u + s (d - negative_scale w n'), d = c - u, n' = part of n - u at a right angle to d
    Off: no guided frame, or `negative_scale: 0` (plain, empty prompt)
    Space: prediction
    Use: a negative prompt that shares words with the prompt
    Source: Armandpour et al. 2023, arXiv:2304.04968.
    """

    can_be_off = False
    needs_negative = True
    branches = ("cond", "uncond", "negative")
    needs_gram = True
    compares: ClassVar[bool] = False

    negative_scale: Number = 1.0

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"cond": strength, "negative": -self.negative_scale * weight * strength}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        pushes_away = np.any(self.deltas(strength_F, weight_F)["negative"] != 0)
        return frozenset(self.branches) if pushes_away else super().required(strength_F, weight_F)

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        deltas = self.deltas(strength, weight)
        direction = gram.vector("cond", "uncond")
        along = gram.inner(gram.vector("negative", "uncond"), direction)
        share = ratio(along, gram.inner(direction, direction), 0.0)
        moved = deltas | {"cond": deltas["cond"] - deltas["negative"] * share}
        return Combination("uncond", None, moved, self.is_off(strength, weight))
