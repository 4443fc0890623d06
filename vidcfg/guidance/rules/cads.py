"""Condition-annealed sampling."""

from typing import Annotated, ClassVar

from vidcfg.guidance.rule import Rule, rule
from vidcfg.settings.base import Finding, Fraction, Range


@rule("cads")
class Cads(Rule):
    """Classifier-free guidance whose condition is annealed: more variety at high scales.

        guided_f = uncond_f + strength_f (cond_f - uncond_f),  cond from the annealed text
        gamma(t) = 1 for t <= tau1, 0 for t >= tau2, (tau2 - t) / (tau2 - tau1) between
        y' = sqrt(gamma) y + noise_scale sqrt(1 - gamma) n,  n standard normal
        y'' = mix (std(y) (y' - mean(y')) / std(y') + mean(y)) + (1 - mix) y'

    t runs from 1 on the first step to 0 on the last. mean and std are over the whole condition of
    a sample. The noise is a function of `seed`, the sample's first noisy latents and the step.

    The annealed condition is what `cond`, and every branch that sees the same, gets in all terms
    beside this one. Strength 1 leaves the annealed conditional prediction; an annealing with
    tau1 = 1 is plain guidance, bit for bit (off).

    Formula: `cfg` with a prompt embedding mixed with noise on noisy steps
    Off: `tau1: 1` is `cfg`
    Use: variety at high scales
    Source: Sadat et al. 2023, arXiv:2310.17347.
    """

    can_be_off = False
    goes_by_step: ClassVar[bool] = True

    tau1: Fraction = 0.6
    tau2: Fraction = 0.9
    noise_scale: Annotated[float, Range(0, 10)] = 0.25
    mix: Fraction = 1.0
    seed: Annotated[int, Range(0)] = 0

    @property
    def changes_cond(self) -> bool:
        """Whether any step is annealed."""
        return self.tau1 < 1

    def findings(self):
        if self.tau1 > self.tau2:
            yield Finding(("tau1",), f"is {self.tau1:g}, but must not exceed tau2 {self.tau2:g}.")

    def gamma(self, step: int, num_steps: int) -> float:
        """gamma of a step; t = 1 - step / (num_steps - 1), and 1 for a single step."""
        t = 1 - step / max(num_steps - 1, 1)
        if t <= self.tau1:
            return 1.0
        return 0.0 if t >= self.tau2 else (self.tau2 - t) / (self.tau2 - self.tau1)
