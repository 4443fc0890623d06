"""Spatio-temporal skip guidance."""

from typing import Literal

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.rule import PerturbedLayers, rule

_CHANGES = {"attention": "identity", "residual": "drop", "block": "skip"}


@rule("stg")
class Stg(PerturbedLayers):
    """Guide away from a pass that skips spatio-temporal attention in some layers.

    | mode        | what the layers do in the perturbed pass                                  |
    |-------------|---------------------------------------------------------------------------|
    | `attention` | the map is the identity: every video token keeps its own value            |
    | `residual`  | the attention adds nothing to the video tokens; cross-attention and MLP do |
    | `block`     | the whole block is left out, for text tokens too                          |

    `layers` are numbers or names of blocks, empty for the published ones: CogVideoX 11,
    HunyuanVideo 2, LTX 19, LTX-2 28, Mochi 34, Wan 2. Strength 1 is off.

    Formula: c + (s - 1) (c - p), p: spatio-temporal attention skipped
    Use: motion and structure of video models
    Source: Hyung et al. 2024, arXiv:2411.18664.
    """

    mode: Literal["attention", "residual", "block"] = "attention"

    @property
    def change(self) -> Perturbation:
        told = "" if self.mode == "attention" else self.mode
        return Perturbation(_CHANGES[self.mode], self.layers, self.kind, mode=told)
