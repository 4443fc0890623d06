"""Perturbed attention guidance."""

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.rule import PerturbedLayers, rule


@rule("pag")
class Pag(PerturbedLayers):
    """Guide away from a pass whose video tokens do not see each other in some layers.

    In the perturbed pass the attention map of the video tokens is the identity, so that each of
    them keeps its own value; in joint attention text tokens attend as before. `layers` are numbers
    or names of blocks, empty for the family's own. Strength 1 is off.

    Formula: c + (s - 1) (c - p), p: identity attention
    Use: better structure without a negative side
    Source: Ahn et al. 2024, arXiv:2403.17377.
    """

    @property
    def change(self) -> Perturbation:
        return Perturbation("identity", self.layers, self.kind)
