"""CFG++: guidance towards the clean video, noise of the unconditional prediction."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import Level, Method, Rows, from_uncond


@dataclass(frozen=True)
class CfgPlusPlus(Method):
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

    Source: Chung et al. 2024, arXiv:2406.08070; r is the ratio of the two steps written out.
    """

    ratio: float | None = None
    name: ClassVar[str] = "cfg_pp"
    branches: ClassVar[tuple[str, ...]] = ("cond", "uncond")
    needs_levels: ClassVar[bool] = True

    def sources(self) -> dict[str, str]:
        return {"uncond": "negative"}

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"cond": strength, "renoise": weight}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        names = set()
        if (strength_F != 0).any():
            names.add("cond")
        if not self.is_off(strength_F, weight_F).all():
            names.add("uncond")
        return frozenset(names)

    def steps(
        self,
        strength_KF: np.ndarray,
        weights_KF: np.ndarray,
        *,
        experts: tuple[str, ...] | None = None,
        levels: tuple[tuple[Level, Level], ...] | None = None,
    ) -> tuple[Method, ...]:
        if levels is None:
            return (self,) * len(strength_KF)
        return tuple(replace(self, ratio=step_ratio(*pair)) for pair in levels)

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        assert self.ratio is not None, "a run of cfg_pp needs the levels of its solver"
        off = self.is_off(strength_BF, weight_BF)
        moved = strength_BF * (1 + weight_BF * (self.ratio - 1))
        return replace(from_uncond({"cond": moved}), off_BF=off)


def step_ratio(before: Level, after: Level) -> float:
    """alpha' sigma / (alpha' sigma - alpha sigma'), 1 at pure noise and for a step to no noise."""
    (alpha, sigma), (next_alpha, next_sigma) = before, after
    assert next_alpha * sigma != alpha * next_sigma, "a step between equal noise levels"
    return next_alpha * sigma / (next_alpha * sigma - alpha * next_sigma)
