"""Guidance away from a prediction made worse in a chosen way: one algebra, several ways."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.perturbation import Change
from vidcfg.guidance.rules.base import Method, Rows, away_from, from_cond, required_by


@dataclass(frozen=True)
class Perturbed(Method):
    """Move a worse prediction towards, and past, the plain one, frame by frame.

        guided_f = cond_f + (strength_f - 1) * (cond_f - perturbed_f)

    `change` says how the model, or its input, is changed for the perturbed pass, which sees all
    that `cond` sees, the positive prompt included, with or without other rules beside it. A
    strength of 1 returns `cond` bit for bit (off) and runs no perturbed pass. w = strength - 1 is
    what peers call pag_scale, slg scale, stg_scale.
    """

    change: Change
    base: ClassVar[str] = "cond"

    @property
    def name(self) -> str:
        return self.change.rule

    @property
    def branches(self) -> tuple[str, ...]:
        return ("cond", self.change.branch)

    @property
    def isolated(self) -> frozenset[str]:
        return frozenset({self.change.branch})

    def sources(self) -> dict[str, str]:
        return {self.change.branch: "cond"}

    def changes(self) -> dict[str, Change]:
        """Branch -> how the model is changed for it."""
        return {self.change.branch: self.change}

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return away_from(self.change.branch, strength)

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        needed = required_by(self.deltas(strength_F, weight_F), self.base)
        return needed | {"cond"} if self.change.follows_cond else needed

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        return from_cond(self.deltas(strength_BF, weight_BF))
