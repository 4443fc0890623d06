"""Smoothed energy guidance."""

import math

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.rules.perturbed import Perturbed


def seg(*, sigma: float | str = math.inf, layers: tuple[int | str, ...] = ()) -> Perturbed:
    """Guide away from a pass whose attention is blurred over its queries in some layers.

        guided_f = cond_f + (strength_f - 1) (cond_f - perturbed_f)

    In the perturbed pass the queries of the video tokens, positions included, are blurred over the
    (frames, rows, columns) of the token grid by a Gaussian of `sigma` tokens. As scores are linear
    in the queries this blurs the rows of the attention map before its softmax. `sigma` "inf"
    gives every query their mean. Strength 1 is off.

    Raises:
        ValueError: for a sigma that is not above 0.

    Source: Hong 2024, arXiv:2408.00760.
    """
    sigma = float(sigma)
    if not sigma > 0:
        raise ValueError(f"seg.sigma is {sigma}. Use a number above 0, or inf for the mean query.")
    return Perturbed(Perturbation("blur", tuple(layers), "seg", sigma=sigma))
