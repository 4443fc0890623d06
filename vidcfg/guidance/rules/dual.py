"""Two-sided guidance: towards the prompt and away from a negative one."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import Method, Rows, from_uncond


@dataclass(frozen=True)
class Dual(Method):
    """Pull towards the prompt and push away from the negative prompt, each with its own scale.

        guided_f = uncond_f + strength_f (cond_f - uncond_f)
                            - negative_scale w_f (negative_f - uncond_f)

    w_f is the frame weight, so a frame of weight 0 is off on both sides, and so is every frame on
    a step outside an interval schedule. `negative_scale` 0 is plain guidance against the empty
    prompt (off). The unconditional branch sees the empty prompt.

    Source: the three-pass form of negative prompts, Liu et al. 2022, arXiv:2206.01714.
    """

    negative_scale: float = 1.0
    name: ClassVar[str] = "dual"
    branches: ClassVar[tuple[str, ...]] = ("cond", "uncond", "negative")

    def sources(self) -> dict[str, str]:
        return {"uncond": "empty", "negative": "negative"}

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"cond": strength, "negative": -self.negative_scale * weight}

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        return from_uncond(self.deltas(strength_BF, weight_BF))
