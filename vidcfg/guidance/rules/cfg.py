"""Classifier-free guidance."""

from vidcfg.guidance.rule import AgainstUncond, rule


@rule("cfg")
class Cfg(AgainstUncond):
    """Move the unconditional prediction towards, and past, the conditional one, frame by frame.

        guided_f = uncond_f + strength_f * (cond_f - uncond_f)

    A strength of 1 returns `cond` bit for bit (off), 0 returns `uncond`, above 1 extrapolates. The
    unconditional branch sees the negative prompt. The other convention in use,
    (1 + w) cond - w uncond, is the same rule with w = strength - 1.

    Formula: u + s (c - u)
    Use: the default
    Source: Ho & Salimans 2022, arXiv:2207.12598, written from uncond as in Imagen,
        arXiv:2205.11487.
    """
