"""CFG-Zero*: guidance with a fitted unconditional prediction, and first steps that do not move."""

from collections.abc import Iterator
from typing import Annotated, Any

from vidcfg.guidance.combination import Combination, as_number
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rule import Compared, Method, Rows, StepOf, ratio, rule
from vidcfg.settings.base import Finding, Range


@rule("zero_star")
class ZeroStar(Compared):
    """Guidance that starts from the multiple of `uncond` that is nearest to `cond`.

        a = <cond, uncond> / <uncond, uncond>
        guided_f = a uncond_f + strength_f * (cond_f - a uncond_f)

    On the first `zero_init_steps` steps of the run the guided frames of a flow model stay where
    they are (a velocity of zero): no branch is evaluated, and limits do not apply. Frames of
    strength 1 are `cond` on these steps too. 0 is off. Where `uncond` is zero a is 1.

    Formula: a u + s (c - a u), a = <c, u> / <u, u>; the first steps stay where they are
    Passes: 2, and 0 on zeroed steps
    Use: flow models, above all young ones
    Source: Fan et al. 2025, arXiv:2503.18886.
    """

    zero_init_steps: Annotated[int, Range(0, 1000)] = 1

    def check_run(self, num_steps: int) -> Iterator[Finding]:
        if self.zero_init_steps >= num_steps:
            message = (
                f"is {self.zero_init_steps}, but sampling.num_steps is {num_steps}, so that no "
                f"step is left. Write {'0' if num_steps == 1 else f'at most {num_steps - 1}'}."
            )
            yield Finding(("zero_init_steps",), message)

    def steps(self, strength_KF: Rows, weights_KF: Rows, **run: Any) -> tuple[Method, ...]:
        zeroed = self.zero_init_steps
        return (ZeroInit(self),) * zeroed + (self,) * (len(strength_KF) - zeroed)

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        deltas = self.deltas(strength, weight)
        fit = ratio(gram.dot("cond", "uncond"), gram.dot("uncond", "uncond"), 1.0)
        gain = strength + fit * (1 - strength)
        return Combination("uncond", gain, deltas, self.is_off(strength, weight))


class ZeroInit(StepOf):
    """A step on which every frame that the rule would guide gets a prediction of zero."""

    base = "cond"
    is_limited = False
    flow_only = True

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Any]:
        return {"zero": 1.0 - self.is_off(strength, weight)}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        return frozenset({"cond"} if self.is_off(strength_F, weight_F).any() else ())

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        is_off = self.is_off(strength, weight)
        return Combination("cond", as_number(is_off), {}, is_off)
