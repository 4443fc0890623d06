"""Skip-layer guidance."""

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.rule import PerturbedLayers, rule


@rule("slg")
class Slg(PerturbedLayers):
    """Guide away from a pass that leaves some transformer blocks out.

    A block that is left out hands on the tokens that it gets, those of the text included. `layers`
    are numbers or names of blocks, empty for the family's own. Strength 1 is off.

    Formula: c + (s - 1) (c - p), p: blocks left out
    Use: transformer models; small strengths, a part of the run
    Source: Stable Diffusion 3.5's inference code (skip layers 7, 8, 9), 2024; for video as in
        Hyung et al. 2024, arXiv:2411.18664.
    """

    @property
    def change(self) -> Perturbation:
        return Perturbation("skip", self.layers, self.kind)
