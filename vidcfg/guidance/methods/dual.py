"""Two-sided guidance: towards the prompt and away from a negative one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.methods.base import branches_with_weight


@dataclass(frozen=True)
class Dual:
    """Pull towards the prompt and push away from the negative prompt, each with its own scale.

        guided_f = uncond_f + strength_f (cond_f - uncond_f)
                            - negative_scale w_f (negative_f - uncond_f)

    w_f is the frame weight, so a frame of weight 0 is off on both sides. `negative_scale` 0 is plain
    guidance against the empty prompt (off). The unconditional branch sees the empty prompt.

    Source: the three-pass form of negative prompts, Liu et al. 2022, arXiv:2206.01714.
    """

    negative_scale: float = 1.0
    name: str = "dual"
    branches: tuple[str, ...] = ("cond", "uncond", "negative")
    needs_gram: bool = False

    def sources(self) -> dict[str, str]:
        return {"uncond": "empty", "negative": "negative"}

    def required(self, strength_F: np.ndarray, weight_F: np.ndarray) -> frozenset[str]:
        negative = self.negative_scale * weight_F
        uncond = 1 - strength_F + negative
        return branches_with_weight({"cond": strength_F, "uncond": uncond, "negative": negative})

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float[Tensor, "B F"],
        weight_BF: Float[Tensor, "B F"],
    ) -> Combination:
        negative = -self.negative_scale * weight_BF
        off = (strength_BF == 1) & (negative == 0)
        return Combination("uncond", None, {"cond": strength_BF, "negative": negative}, off)
