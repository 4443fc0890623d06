"""Several conditions at once, one scale each."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import Method, Rows, from_uncond


@dataclass(frozen=True)
class Multi(Method):
    """Add the directions of several conditions, each with its own scale.

        guided_f = uncond_f + strength_f (cond_f - uncond_f)
                            + sum_i scale_i w_f (condition_i,f - uncond_f)

    w_f is the frame weight, 0 for every frame on a step outside an interval schedule. A
    condition's scale of 0 is off; with all of them 0 this is plain guidance. One evaluation per
    condition and step beside `cond` and `uncond`. `scales` is a tuple of (condition name, scale).
    The unconditional branch sees the negative prompt.

    Source: composable diffusion, Liu et al. 2022, arXiv:2206.01714.
    """

    scales: tuple[tuple[str, float], ...]
    name: ClassVar[str] = "multi"

    @property
    def branches(self) -> tuple[str, ...]:
        return ("cond", "uncond", *(f"condition:{name}" for name, _ in self.scales))

    def sources(self) -> dict[str, str]:
        return {"uncond": "negative"} | {branch: branch for branch in self.branches[2:]}

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"cond": strength} | {
            f"condition:{name}": scale * weight for name, scale in self.scales
        }

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        return from_uncond(self.deltas(strength_BF, weight_BF))
