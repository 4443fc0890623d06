"""Classifier guidance: along the gradient of a noise-aware log-probability."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import Method, Rows


@dataclass(frozen=True)
class Classifier(Method):
    """Add the gradient of a log-probability of the noisy latents to the prediction.

        score'_f = score_f + (strength_f - 1) grad_x log p(y | x_t)_f,  score = -eps / sigma

    so eps moves by -sigma (strength - 1) grad, and other kinds of prediction by what that means
    for them. The branch `classifier` is not a model evaluation but this shift at strength 2. On
    pure noise (alpha 0), which tells nothing of y, it is 0. Strength 1 is off and takes no
    gradient.

    Source: Dhariwal & Nichol 2021, arXiv:2105.05233.
    """

    name: ClassVar[str] = "classifier"
    branches: ClassVar[tuple[str, ...]] = ("cond", "classifier")
    base: ClassVar[str] = "cond"
    isolated: ClassVar[frozenset[str]] = frozenset({"classifier"})

    def sources(self) -> dict[str, str]:
        return {"classifier": "cond"}

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"classifier": strength - 1}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        return frozenset({"cond", "classifier"} if np.any(strength_F != 1) else {"cond"})

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        """cond + w shift, as strength * cond + w (shift - cond), since `shift` is a difference."""
        weight = strength_BF - 1
        return Combination("cond", strength_BF, {"classifier": weight}, weight == 0)
