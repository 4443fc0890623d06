"""Condition-annealed sampling."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import AgainstUncond, from_uncond


@dataclass(frozen=True)
class Annealing:
    """How the condition is mixed with noise on the noisy steps.

        gamma(t) = 1 for t <= tau1, 0 for t >= tau2, (tau2 - t) / (tau2 - tau1) between
        y' = sqrt(gamma) y + noise_scale sqrt(1 - gamma) n,  n standard normal
        y'' = mix (std(y) (y' - mean(y')) / std(y') + mean(y)) + (1 - mix) y'

    t runs from 1 on the first step to 0 on the last. mean and std are over the whole condition of
    a sample. The noise is a function of `seed`, the sample's first noisy latents and the step. A
    noise_scale of 0 together with tau1 = 1 leaves the condition as it is.
    """

    tau1: float = 0.6
    tau2: float = 0.9
    noise_scale: float = 0.25
    mix: float = 1.0
    seed: int = 0

    def gamma(self, step: int, num_steps: int) -> float:
        """gamma of a step; t = 1 - step / (num_steps - 1), and 1 for a single step."""
        t = 1 - step / max(num_steps - 1, 1)
        if t <= self.tau1:
            return 1.0
        return 0.0 if t >= self.tau2 else (self.tau2 - t) / (self.tau2 - self.tau1)


@dataclass(frozen=True)
class ConditionAnnealed(AgainstUncond):
    """Classifier-free guidance whose condition is annealed: more variety at high scales.

        guided_f = uncond_f + strength_f (cond_f - uncond_f),  cond from the annealed text

    The annealed condition is what `cond`, and every branch that sees the same, gets in all terms
    beside this one. Strength 1 leaves the annealed conditional prediction; an annealing with
    tau1 = 1 is plain guidance, bit for bit (off).

    Source: Sadat et al. 2023, arXiv:2310.17347.
    """

    annealing: Annealing = field(default_factory=Annealing)
    name: ClassVar[str] = "cads"

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        return from_uncond(self.deltas(strength_BF, weight_BF))


def cads(
    *,
    tau1: float = 0.6,
    tau2: float = 0.9,
    noise_scale: float = 0.25,
    mix: float = 1.0,
    seed: int = 0,
) -> ConditionAnnealed:
    """The rule with these parameters of `Annealing`.

    Raises:
        ValueError: unless 0 <= tau1 <= tau2 <= 1.
    """
    if not 0 <= tau1 <= tau2 <= 1:
        raise ValueError(f"cads.tau1 is {tau1} and tau2 {tau2}. Use 0 <= tau1 <= tau2 <= 1.")
    return ConditionAnnealed(Annealing(tau1, tau2, noise_scale, mix, seed))
