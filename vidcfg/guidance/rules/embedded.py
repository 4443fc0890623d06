"""Guidance by the scale that a distilled model takes as an input."""

import numpy as np

from vidcfg.guidance.rule import Rows, Rule, rule


@rule("embedded")
class Embedded(Rule):
    """Set the embedded scale of a guidance-distilled model, step by step and frame by frame.

        guided_f = cond_f + w_f (embedded_f - cond_f)

    The model takes one scale per sample, so frames are mixed from two passes: `embedded` at the
    scale of the step, `cond` at 1. w_f is the frame weight. Where all frames have weight 1, one
    pass at the scale is run, and where all are off (strength 1), one pass at 1.

    Formula: c + w (e - c), e: the model's own input at scale s
    Passes: 1, and 2 where frames differ
    Use: guidance-distilled models (HunyuanVideo, Flux)
    Source: the embedded scale is that of distilled guidance, Meng et al. 2022, arXiv:2210.03142.
    """

    can_be_off = False
    branches = ("cond", "embedded")
    base = "cond"

    def tag(self, branch: str, strength_F: Rows, weight_F: Rows) -> object:
        # Beside samples of other rules, whose input is the pipeline's own in every branch.
        return scale_at(strength_F, weight_F) if branch == "embedded" else 1.0

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"embedded": weight * (strength != 1)}


def scale_at(strength_F: Rows, weight_F: Rows) -> float:
    """The scale of a step, from the strengths 1 + (scale - 1) w of its frames; 1 where off."""
    largest = int(np.argmax(np.abs(weight_F)))
    if weight_F[largest] == 0:
        return 1.0
    return float(1 + (strength_F[largest] - 1) / weight_F[largest])
