"""Autoguidance: away from a weaker model."""

from vidcfg.guidance.perturbation import WeakModel
from vidcfg.guidance.rules.perturbed import Perturbed


def autoguidance(
    *,
    checkpoint: str | None = None,
    subfolder: str | None = None,
    skip: tuple[int | str, ...] = (),
    noise: float = 0.0,
    bits: int | None = None,
    seed: int = 0,
) -> Perturbed:
    """Move a weaker model's prediction towards, and past, the model's own, frame by frame.

        guided_f = cond_f + (strength_f - 1) * (cond_f - weak_f)

    The weak model sees the same condition. It is another checkpoint, or the model itself degraded
    in a way that depends on nothing but these values (see `WeakModel`); without any of them, the
    weak checkpoint that comes with the mini model. Strength 1 is off and runs no weak pass.

    Source: Karras et al. 2024, arXiv:2406.02507.
    """
    if checkpoint is None and not (skip or noise or bits is not None):
        checkpoint = "mini"
    return Perturbed(WeakModel(checkpoint, subfolder, tuple(skip), float(noise), bits, seed))
