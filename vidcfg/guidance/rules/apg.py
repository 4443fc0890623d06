"""Adaptive projected guidance."""

from typing import Annotated, Any

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rule import Compared, Rows, Space, Vectors, ratio, rule
from vidcfg.settings.base import Number, Positive, Range


@rule("apg")
class Apg(Compared):
    """Guidance that is kept short and mostly perpendicular to the conditional prediction.

        d = cond - uncond + momentum * (the d of the sample's last guided step)
        d = d * min(1, norm / rms(d))
        along = (<d, cond> / <cond, cond>) cond
        guided_f = cond_f + (strength_f - 1) * (d - along + eta * along)

    `norm` caps the root mean square of d over the frame (or clip), so that it does not depend on
    the resolution or the number of frames: the threshold r of the paper, on the norm of n
    elements, is norm = r / sqrt(n). Off: eta 1, norm None and momentum 0 are plain guidance, bit
    for bit. The momentum is kept per sample and per expert, and reset at the start of a run.

    Formula: c + (s - 1) (d' + eta d"), d capped at an RMS of `norm`, d" its part along c, d' the
        rest
    Off: s = 1; `eta: 1`, no norm, no momentum is `cfg`
    Use: high scales without burnt colours
    Source: Sadat et al. 2024, arXiv:2410.02416, in the paper's space x0.
    """

    eta: Number = 0.0
    norm: Positive | None = None
    momentum: Annotated[float, Range(-1, 1)] = 0.0
    space: Space = "x0"

    @property
    def extras(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    remembers = extras

    def extra(self, vectors: Vectors) -> dict[str, Any]:
        change = vectors.difference("cond", "uncond").mul_(vectors.x0_scale)
        if "momentum" in vectors.remembered:
            change.add_(vectors.remembered["momentum"], alpha=self.momentum)
        return {"momentum": change}

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        if self.eta == 1 and self.norm is None and self.momentum == 0:
            return super().combination(gram, strength, weight)
        change = gram.vector("momentum") if self.momentum else gram.vector("cond", "uncond")
        cond = gram.vector("cond")
        push = strength - 1
        if self.norm is not None:
            size = (gram.inner(change, change).clamp_min(0) / gram.count).sqrt()
            push = push * ratio(self.norm, size, 1.0).clamp_max(1)
        along = ratio(gram.inner(change, cond), gram.inner(cond, cond), 0.0)
        gain = 1 - (1 - self.eta) * along * push
        extra = {"momentum": push} if self.momentum else {}
        moved = {"cond": gain if self.momentum else gain + push}
        is_off = self.is_off(strength, weight)
        return Combination("uncond", gain, moved, is_off, extra_BF=extra)
