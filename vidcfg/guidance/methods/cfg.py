"""Classifier-free guidance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.methods.base import branches_with_weight


@dataclass(frozen=True)
class ClassifierFree:
    """Move the unconditional prediction towards, and past, the conditional one, frame by frame.

        guided_f = uncond_f + strength_f * (cond_f - uncond_f)

    A strength of 1 returns `cond` bit for bit (off), 0 returns `uncond`, above 1 extrapolates. The
    unconditional branch sees the negative prompt. The other convention in use, (1 + w) cond - w uncond,
    is the same rule with w = strength - 1.

    Source: Ho & Salimans 2022, arXiv:2207.12598, written from uncond as in Imagen, arXiv:2205.11487.
    """

    name: str = "cfg"
    branches: tuple[str, ...] = ("cond", "uncond")
    needs_gram: bool = False

    def sources(self) -> dict[str, str]:
        return {"uncond": "negative"}

    def required(self, strength_F: np.ndarray, weight_F: np.ndarray) -> frozenset[str]:
        return branches_with_weight({"cond": strength_F, "uncond": 1 - strength_F})

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float[Tensor, "B F"],
        weight_BF: Float[Tensor, "B F"],
    ) -> Combination:
        return Combination("uncond", None, {"cond": strength_BF}, strength_BF == 1)
