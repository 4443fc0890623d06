"""Several conditions at once, one scale each."""

from typing import Annotated

from pydantic import Field

from vidcfg.guidance.rule import Rows, Rule, rule
from vidcfg.settings.base import AtLeastOne, ConfigModel, Finding, Number


class Condition(ConfigModel):
    """One more prompt with a scale of its own."""

    name: Annotated[str, Field(min_length=1)] = Field(description="a short name for the trace")
    prompt: Annotated[str, Field(min_length=1)] = Field(description="text")
    scale: Number = Field(description="a number, 0 = off")


@rule("multi")
class Multi(Rule):
    """Add the directions of several conditions, each with its own scale.

        guided_f = uncond_f + strength_f (cond_f - uncond_f)
                            + sum_i scale_i w_f (condition_i,f - uncond_f)

    w_f is the frame weight, 0 for every frame on a step outside an interval schedule. A
    condition's scale of 0 is off; with all of them 0 this is plain guidance. One evaluation per
    condition and step beside `cond` and `uncond`, which sees the negative prompt.

    Formula: u + s (c - u) + sum_i scale_i w (c_i - u)
    Off: no guided frame, or every scale 0
    Passes: 2 + conditions
    Use: several prompts at once
    Source: composable diffusion, Liu et al. 2022, arXiv:2206.01714.
    """

    can_be_off = False

    conditions: AtLeastOne[Condition] = Field(
        description="a list such as [{name: sky, prompt: a red sky, scale: 2.0}]"
    )

    def findings(self):
        names = [condition.name for condition in self.conditions]
        for i, name in enumerate(names):
            if name in names[:i]:
                what = f"is '{name}', like that of condition {names.index(name)}."
                yield Finding(("conditions", i, "name"), f"{what} Name them apart.")

    @property
    def branches(self) -> tuple[str, ...]:
        return ("cond", "uncond", *(f"condition:{c.name}" for c in self.conditions))

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        others = {f"condition:{c.name}": c.scale * weight for c in self.conditions}
        return {"cond": strength} | others
