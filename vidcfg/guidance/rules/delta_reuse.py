"""Guidance that evaluates the unconditional branch on some steps only."""

from typing import Annotated, Any, ClassVar

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rule import AgainstUncond, Method, Rows, StepOf, Vectors, rule
from vidcfg.settings.base import Range


@rule("delta_reuse")
class DeltaReuse(AgainstUncond):
    """Plain guidance that keeps cond - uncond for up to `every` steps.

        d_k = cond_k - uncond_k         on the first guided step, and `every` steps after the last
        d_k = d of the last such step   else: the unconditional branch is left out
        guided_f = cond_f + (strength_f - 1) d_k,f

    The difference is that of predictions, not of x0. It is made anew when another expert takes
    over. `every` 1 is plain guidance, bit for bit (off). Both evaluations of a step of a
    second-order solver share the decision.

    Formula: c + (s - 1) d, d = c - u of the last step that made it
    Off: s = 1; `every: 1` is `cfg`
    Passes: 2 on every n-th step, else 1
    Space: prediction
    Use: save passes, predictably
    Source: the guidance cache of FastVideo, and of FasterCache, Lv et al. 2024, arXiv:2410.19355,
        without its frequency weights.
    """

    compares: ClassVar[bool] = True

    every: Annotated[int, Range(1, 1000)] = 2

    @property
    def extras(self) -> tuple[str, ...]:
        return ("delta",) if self.every > 1 else ()

    remembers = extras

    def steps(
        self, strength_KF: Rows, weights_KF: Rows, *, experts: Any = None, **run: Any
    ) -> tuple[Method, ...]:
        found, last = [], {}
        for k, strength_F in enumerate(strength_KF):
            expert = None if experts is None else experts[k]
            reuse = expert in last and k - last[expert] < self.every
            if (strength_F != 1).any() and not reuse:
                last = {expert: k}
            found.append(Reuse(self) if reuse else self)
        return tuple(found)

    def extra(self, vectors: Vectors) -> dict[str, Any]:
        return {"delta": vectors.difference("cond", "uncond")}


class Reuse(StepOf):
    """A step that takes cond - uncond from an earlier one."""

    base = "cond"
    extras = ("delta",)

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"delta": strength - 1}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        return frozenset({"cond"})

    def extra(self, vectors: Vectors) -> dict[str, Any]:
        return {"delta": vectors.remembered["delta"]}

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        kept = self.deltas(strength, weight)
        return Combination("cond", None, {}, self.is_off(strength, weight), extra_BF=kept)
