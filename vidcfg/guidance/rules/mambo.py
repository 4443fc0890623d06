"""Magnitude-aware guidance."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import AgainstUncond, is_off, ratio


@dataclass(frozen=True)
class MagnitudeAware(AgainstUncond):
    """Plain guidance whose strength falls where the two predictions are far apart.

        damping = exp(-alpha ||cond - uncond|| / ||uncond||)
        guided_f = uncond_f + (1 + (strength_f - 1) damping) * (cond_f - uncond_f)

    `alpha` 0 is plain guidance, bit for bit (off). Where `uncond` is zero the damping is 1.

    Source: Zhu et al. 2025 (MAMBO-G), arXiv:2508.03442.
    """

    alpha: float = 8.0
    space: str = "prediction"
    name: ClassVar[str] = "mambo"
    needs_gram: ClassVar[bool] = True

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        deltas = self.deltas(strength_BF, weight_BF)
        change = gram.vector("cond", "uncond")
        apart = ratio(gram.inner(change, change), gram.dot("uncond", "uncond"), 0.0)
        damping = np.exp(-self.alpha * np.sqrt(np.maximum(apart, 0.0)))
        damped = np.where(damping == 1, strength_BF, 1 + (strength_BF - 1) * damping)
        return Combination("uncond", None, {"cond": damped}, is_off(deltas))
