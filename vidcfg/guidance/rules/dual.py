"""Two-sided guidance: towards the prompt and away from a negative one."""

from vidcfg.guidance.rule import Rows, Rule, rule
from vidcfg.settings.base import Number


@rule("dual")
class Dual(Rule):
    """Pull towards the prompt and push away from the negative prompt, each with its own scale.

        guided_f = uncond_f + strength_f (cond_f - uncond_f)
                            - negative_scale w_f (negative_f - uncond_f)

    w_f is the frame weight, so a frame of weight 0 is off on both sides, and so is every frame on
    a step outside an interval schedule. `negative_scale` 0 is plain guidance against the empty
    prompt (off). The unconditional branch sees the empty prompt.

    Formula: u + s (c - u) - negative_scale w (n - u), u of the empty prompt
    Off: no guided frame, or `negative_scale: 0` (plain, empty prompt)
    Use: steer away from something, with a strength of its own
    Source: the three-pass form of negative prompts, Liu et al. 2022, arXiv:2206.01714.
    """

    can_be_off = False
    needs_negative = True
    branches = ("cond", "uncond", "negative")

    negative_scale: Number = 2.0

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"cond": strength, "negative": -self.negative_scale * weight}
