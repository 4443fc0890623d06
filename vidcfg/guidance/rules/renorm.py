"""Guidance whose result may not outgrow the conditional prediction."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import AgainstUncond, from_uncond, ratio


@dataclass(frozen=True)
class Renorm(AgainstUncond):
    """Plain guidance, scaled down where its norm is above `cap` times that of `cond`.

        g_f = uncond_f + strength_f * (cond_f - uncond_f)
        guided_f = g_f * min(1, cap ||cond|| / ||g||)

    A cap that is never reached is plain guidance, bit for bit. Unlike rescale it only ever scales
    down. Source: the cap on the norm of Lumina-Image 2.0, arXiv:2503.21758.
    """

    cap: float = 1.0
    space: str = "prediction"
    name: ClassVar[str] = "renorm"
    needs_gram: ClassVar[bool] = True

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        plain = from_uncond(self.deltas(strength_BF, weight_BF))
        guided = strength_BF[..., None] * gram.vector("cond", "uncond") + gram.vector("uncond")
        size = np.sqrt(gram.energy(guided))
        cond = np.sqrt(np.maximum(gram.dot("cond", "cond"), 0.0))
        factor = np.minimum(1.0, ratio(self.cap * cond, size, 1.0))
        return plain.scaled(np.broadcast_to(factor, strength_BF.shape))
