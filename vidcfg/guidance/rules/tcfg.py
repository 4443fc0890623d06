"""Tangential classifier-free guidance."""

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rule import Compared, Rows, ratio, rule


@rule("tcfg")
class Tcfg(Compared):
    """Guidance away from the part of `uncond` that lies along what both predictions share.

        v1 = first right-singular vector of the two rows [cond; uncond]
        guided_f = <uncond, v1> v1 + strength_f * (cond_f - <uncond, v1> v1)

    v1 is in the span of both predictions, so the projection follows from their Gram matrix
    [[a, b], [b, d]] without a decomposition: with r = sqrt((a - d)^2 + 4 b^2)

        <uncond, v1> v1 = (b / r) cond + (1 - (a - d) / r) / 2 uncond

    Where r is 0 (equal norms at a right angle, or both zero) v1 is not defined, and `uncond` is
    taken as it is.

    Formula: u' + s (c - u'), u' = part of u along the main direction of c and u
    Use: softer than `cfg` where u disagrees with c
    Source: Kwon et al. 2025, arXiv:2503.18137.
    """

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        change, cond = gram.vector("cond", "uncond"), gram.vector("cond")
        apart = gram.inner(change, cond) + gram.inner(change, gram.vector("uncond"))
        shared = gram.dot("cond", "uncond")
        r = (apart**2 + 4 * shared**2).sqrt()
        of_cond = ratio(shared, r, 0.0)
        of_uncond = (1 - ratio(apart, r, -1.0)) / 2
        away = 1 - strength
        moved = strength + away * of_cond
        is_off = self.is_off(strength, weight)
        return Combination("uncond", moved + away * of_uncond, {"cond": moved}, is_off)
