"""Magnitude-aware guidance."""

from typing import Annotated

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rule import Compared, Rows, ratio, rule
from vidcfg.settings.base import Range


@rule("mambo")
class Mambo(Compared):
    """Plain guidance whose strength falls where the two predictions are far apart.

        damping = exp(-alpha ||cond - uncond|| / ||uncond||)
        guided_f = uncond_f + (1 + (strength_f - 1) damping) * (cond_f - uncond_f)

    `alpha` 0 is plain guidance, bit for bit (off). Where `uncond` is zero the damping is 1.

    Formula: u + (1 + (s - 1) exp(-alpha |c - u| / |u|)) (c - u)
    Off: s = 1; `alpha: 0` is `cfg`
    Use: large scales in few steps
    Source: Zhu et al. 2025 (MAMBO-G), arXiv:2508.03442.
    """

    alpha: Annotated[float, Range(0)] = 8.0

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        change = gram.vector("cond", "uncond")
        apart = ratio(gram.inner(change, change), gram.dot("uncond", "uncond"), 0.0)
        damping = (-self.alpha * apart.clamp_min(0).sqrt()).exp()
        damped = strength.where(damping == 1, 1 + (strength - 1) * damping)
        is_off = self.is_off(strength, weight)
        return Combination("uncond", None, {"cond": damped}, is_off)
