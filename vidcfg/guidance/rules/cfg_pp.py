"""CFG++: guidance towards the clean video, noise of the unconditional prediction."""

from dataclasses import replace
from typing import Any

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rule import Level, Method, Rows, Rule, StepOf, rule


@rule("cfg_pp")
class CfgPp(Rule):
    """A step to the guided clean video, noised again with the unconditional noise.

        x' = alpha' x0(g_f) + sigma' eps(uncond_f)
        g_f = uncond_f + strength_f (cond_f - uncond_f)

    from the level (alpha, sigma) to (alpha', sigma'). The strength is the lambda of the paper,
    from 0 to 1. Euler and DDIM solvers take x0 and eps from one prediction, and make this very
    step of

        guided_f = uncond_f + strength_f (1 + w_f (r - 1)) (cond_f - uncond_f)
        r = alpha' sigma / (alpha' sigma - alpha sigma')

    so that no solver is changed. w_f is the frame weight: a frame of weight 0 takes both parts of
    `cond` (off), as does a step outside an interval schedule. No strength is off: at 1 the noise
    is still that of `uncond`, whose evaluation is never left out.

    Formula: next x from x0 of u + s (c - u) and the noise of u; s is lambda, from 0 to 1
    Off: frame weight 0
    Space: any; Euler and DDIM solvers
    Use: mild guidance that stays near the data; few steps
    Source: Chung et al. 2024, arXiv:2406.08070; r is the ratio of the two steps written out.
    """

    can_be_off = False
    solvers = ("flow_euler", "ddim")
    needs_levels = True
    highest = (1.0, "CFG++ takes a lambda from 0 to 1")

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"cond": strength, "renoise": weight}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        needed = {"cond"} if (strength_F != 0).any() else set()
        is_off = self.is_off(strength_F, weight_F).all()
        return frozenset(needed if is_off else needed | {"uncond"})

    def steps(
        self, strength_KF: Rows, weights_KF: Rows, *, levels: Any = None, **run: Any
    ) -> tuple[Method, ...]:
        if levels is None:
            return (self,) * len(strength_KF)
        return tuple(Renoised(self, step_ratio(*pair)) for pair in levels)


class Renoised(StepOf):
    """A step between two known levels; `ratio` is its r."""

    rule: CfgPp
    ratio: float

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return self.rule.deltas(strength, weight)

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        return self.rule.required(strength_F, weight_F)

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        moved = strength * (1 + weight * (self.ratio - 1))
        return replace(super().combination(gram, strength, weight), delta_BF={"cond": moved})


def step_ratio(before: Level, after: Level) -> float:
    """alpha' sigma / (alpha' sigma - alpha sigma'), 1 at pure noise and for a step to no noise."""
    (alpha, sigma), (next_alpha, next_sigma) = before, after
    assert next_alpha * sigma != alpha * next_sigma, "a step between equal noise levels"
    return next_alpha * sigma / (next_alpha * sigma - alpha * next_sigma)
