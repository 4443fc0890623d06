"""Guidance that ends by itself once it has nothing to say."""

from dataclasses import replace
from typing import Annotated

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rule import Compared, Rows, ratio, rule
from vidcfg.settings.base import Range


@rule("adaptive_stop")
class AdaptiveStop(Compared):
    """Plain guidance until both predictions point the same way, then `cond` alone.

        cosine = <cond, uncond> / (||cond|| ||uncond||)

    A frame (or, with clip statistics, the clip) whose cosine is above `cosine` is guided for the
    last time on that step; once no frame is left, the unconditional branch is left out. A plan
    counts as if it never stopped: an upper bound. `cosine` 1 never stops (off).

    Formula: `cfg`, until cos(c, u) is above `cosine`; c from the next step on
    Off: s = 1; `cosine: 1` is `cfg`
    Passes: 2, then 1 (a plan gives the upper bound)
    Use: save passes
    Source: Castillo et al. 2023 (Adaptive Guidance), arXiv:2312.12487.
    """

    may_stop = True

    cosine: Annotated[float, Range(-1, 1)] = 0.99

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        plain = super().combination(gram, strength, weight)
        sizes = (gram.dot("cond", "cond") * gram.dot("uncond", "uncond")).clamp_min(0)
        cosine = ratio(gram.dot("cond", "uncond"), sizes.sqrt(), 0.0)
        stop = cosine.clamp_max(1) > self.cosine
        return replace(plain, stop_BF=stop.expand(strength.shape))
