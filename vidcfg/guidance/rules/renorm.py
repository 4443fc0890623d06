"""Guidance whose result may not outgrow the conditional prediction."""

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rule import Compared, Rows, ratio, rule
from vidcfg.settings.base import Positive


@rule("renorm")
class Renorm(Compared):
    """Plain guidance, scaled down where its norm is above `cap` times that of `cond`.

        g_f = uncond_f + strength_f * (cond_f - uncond_f)
        guided_f = g_f * min(1, cap ||cond|| / ||g||)

    A cap that is never reached is plain guidance, bit for bit. Unlike rescale it only ever scales
    down.

    Formula: g min(1, cap |c| / |g|), g = u + s (c - u)
    Off: s = 1; a cap that is never reached is `cfg`
    Use: keep contrast at high scales; unlike rescale it never scales up
    Source: the cap on the norm of Lumina-Image 2.0, arXiv:2503.21758.
    """

    cap: Positive = 1.0

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        plain = super().combination(gram, strength, weight)
        guided = strength[..., None] * gram.vector("cond", "uncond") + gram.vector("uncond")
        size = gram.energy(guided).sqrt()
        cond = gram.dot("cond", "cond").clamp_min(0).sqrt()
        factor = ratio(self.cap * cond, size, 1.0).clamp_max(1)
        return plain.scaled(factor.expand(strength.shape))
