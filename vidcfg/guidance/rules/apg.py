"""Adaptive projected guidance."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import (
    Method,
    Rows,
    Vectors,
    from_uncond,
    guided_by_both,
    is_off,
    ratio,
)


@dataclass(frozen=True)
class AdaptiveProjected(Method):
    """Guidance that is kept short and mostly perpendicular to the conditional prediction.

        d = cond - uncond + momentum * (the d of the sample's last guided step)
        d = d * min(1, norm / rms(d))
        along = (<d, cond> / <cond, cond>) cond
        guided_f = cond_f + (strength_f - 1) * (d - along + eta * along)

    `norm` caps the root mean square of d over the frame (or clip), so that it does not depend on
    the resolution or the number of frames: the threshold r of the paper, on the norm of n
    elements, is norm = r / sqrt(n). Off: eta 1, norm None and momentum 0 are plain guidance, bit
    for bit. The momentum is kept per sample and per expert, and reset at the start of a run.

    Source: Sadat et al. 2024, arXiv:2410.02416, in the paper's space x0.
    """

    eta: float = 0.0
    norm: float | None = None
    momentum: float = 0.0
    space: str = "x0"
    name: ClassVar[str] = "apg"
    branches: ClassVar[tuple[str, ...]] = ("cond", "uncond")
    needs_gram: ClassVar[bool] = True

    @property
    def is_plain(self) -> bool:
        """Whether this is plain guidance."""
        return self.eta == 1 and self.norm is None and self.momentum == 0

    @property
    def extras(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    @property
    def remembers(self) -> tuple[str, ...]:
        return self.extras

    def sources(self) -> dict[str, str]:
        return {"uncond": "negative"}

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"cond": strength}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        return guided_by_both(self.deltas(strength_F, weight_F))

    def extra(self, vectors: Vectors) -> dict[str, Any]:
        if not self.momentum:
            return {}
        change = vectors.difference("cond", "uncond").mul_(vectors.x0_scale)
        if "momentum" in vectors.remembered:
            change.add_(vectors.remembered["momentum"], alpha=self.momentum)
        return {"momentum": change}

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        deltas = self.deltas(strength_BF, weight_BF)
        if self.is_plain:
            return from_uncond(deltas)
        change = gram.vector("momentum") if self.momentum else gram.vector("cond", "uncond")
        cond = gram.vector("cond")
        push = strength_BF - 1
        if self.norm is not None:
            size = np.sqrt(np.maximum(gram.inner(change, change), 0.0) / gram.count)
            push = push * np.minimum(1.0, ratio(self.norm + 0 * size, size, 1.0))
        along = ratio(gram.inner(change, cond), gram.inner(cond, cond), 0.0)
        gain = 1 - (1 - self.eta) * along * push
        extra = {"momentum": push} if self.momentum else {}
        moved = {"cond": gain if self.momentum else gain + push}
        return Combination("uncond", gain, moved, is_off(deltas), extra_BF=extra)
