"""Classifier-free guidance."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import AgainstUncond, from_uncond


@dataclass(frozen=True)
class ClassifierFree(AgainstUncond):
    """Move the unconditional prediction towards, and past, the conditional one, frame by frame.

        guided_f = uncond_f + strength_f * (cond_f - uncond_f)

    A strength of 1 returns `cond` bit for bit (off), 0 returns `uncond`, above 1 extrapolates. The
    unconditional branch sees the negative prompt. The other convention in use,
    (1 + w) cond - w uncond, is the same rule with w = strength - 1.

    Source: Ho & Salimans 2022, arXiv:2207.12598, written from uncond as in Imagen,
    arXiv:2205.11487.
    """

    name: ClassVar[str] = "cfg"

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        return from_uncond(self.deltas(strength_BF, weight_BF))
