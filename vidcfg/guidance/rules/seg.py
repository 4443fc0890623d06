"""Smoothed energy guidance."""

from typing import Literal

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.rule import PerturbedLayers, rule
from vidcfg.settings.base import Positive


@rule("seg")
class Seg(PerturbedLayers):
    """Guide away from a pass whose attention is blurred over its queries in some layers.

    In the perturbed pass the queries of the video tokens, positions included, are blurred over the
    (frames, rows, columns) of the token grid by a Gaussian of `sigma` tokens. As scores are linear
    in the queries this blurs the rows of the attention map before its softmax. `sigma` "inf"
    gives every query their mean. Strength 1 is off.

    Formula: c + (s - 1) (c - p), p: queries blurred by `sigma` tokens
    Off: s = 1; `sigma` near 0 changes nothing
    Use: as pag, gentler
    Source: Hong 2024, arXiv:2408.00760.
    """

    sigma: Positive | Literal["inf"] = "inf"

    @property
    def change(self) -> Perturbation:
        return Perturbation("blur", self.layers, self.kind, sigma=float(self.sigma))
