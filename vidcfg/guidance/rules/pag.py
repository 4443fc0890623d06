"""Perturbed attention guidance."""

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.rules.perturbed import Perturbed


def pag(*, layers: tuple[int | str, ...] = ()) -> Perturbed:
    """Guide away from a pass whose video tokens do not see each other in some layers.

        guided_f = cond_f + (strength_f - 1) (cond_f - perturbed_f)

    In the perturbed pass the attention map of the video tokens is the identity, so that each of
    them keeps its own value; in joint attention text tokens attend as before. `layers` are numbers
    or names of blocks, empty for the family's own. Strength 1 is off.

    Source: Ahn et al. 2024, arXiv:2403.17377.
    """
    return Perturbed(Perturbation("identity", tuple(layers), "pag"))
