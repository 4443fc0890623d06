"""Guidance that ends by itself once it has nothing to say."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import AgainstUncond, from_uncond, ratio


@dataclass(frozen=True)
class AdaptiveStop(AgainstUncond):
    """Plain guidance until both predictions point the same way, then `cond` alone.

        cosine = <cond, uncond> / (||cond|| ||uncond||)

    A frame (or, with clip statistics, the clip) whose cosine is above `cosine` is guided for the
    last time on that step; once no frame is left, the unconditional branch is left out. A plan
    counts as if it never stopped: an upper bound. `cosine` 1 never stops (off).

    Source: Castillo et al. 2023 (Adaptive Guidance), arXiv:2312.12487.
    """

    cosine: float = 0.99
    space: str = "prediction"
    name: ClassVar[str] = "adaptive_stop"
    needs_gram: ClassVar[bool] = True
    may_stop: ClassVar[bool] = True

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        plain = from_uncond(self.deltas(strength_BF, weight_BF))
        sizes = np.maximum(gram.dot("cond", "cond") * gram.dot("uncond", "uncond"), 0.0)
        cosine = ratio(gram.dot("cond", "uncond"), np.sqrt(sizes), 0.0)
        stop = np.minimum(cosine, 1.0) > self.cosine
        return replace(plain, stop_BF=np.broadcast_to(stop, strength_BF.shape))
