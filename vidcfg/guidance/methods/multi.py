"""Several conditions at once, one scale each."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.methods.base import branches_with_weight


@dataclass(frozen=True)
class Multi:
    """Add the directions of several conditions, each with its own scale.

        guided_f = uncond_f + strength_f (cond_f - uncond_f)
                            + sum_i scale_i w_f (condition_i,f - uncond_f)

    w_f is the frame weight. A condition's scale of 0 is off; with all of them 0 this is plain guidance.
    One evaluation per condition and step beside `cond` and `uncond`. `scales` is a tuple of
    (condition name, scale). The unconditional branch sees the negative prompt.

    Source: composable diffusion, Liu et al. 2022, arXiv:2206.01714.
    """

    scales: tuple[tuple[str, float], ...]
    name: str = "multi"
    needs_gram: bool = False

    @property
    def branches(self) -> tuple[str, ...]:
        return ("cond", "uncond", *(f"condition:{name}" for name, _ in self.scales))

    def sources(self) -> dict[str, str]:
        return {"uncond": "negative"} | {branch: branch for branch in self.branches[2:]}

    def required(self, strength_F: np.ndarray, weight_F: np.ndarray) -> frozenset[str]:
        conditions = {f"condition:{name}": scale * weight_F for name, scale in self.scales}
        uncond = 1 - strength_F - sum(conditions.values())
        return branches_with_weight({"cond": strength_F, "uncond": uncond} | conditions)

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float[Tensor, "B F"],
        weight_BF: Float[Tensor, "B F"],
    ) -> Combination:
        conditions = {f"condition:{name}": scale * weight_BF for name, scale in self.scales}
        off = strength_BF == 1
        for values in conditions.values():
            off = off & (values == 0)
        return Combination("uncond", None, {"cond": strength_BF} | conditions, off)
