"""Autoguidance: away from a weaker model."""

from typing import Annotated

from pydantic import Field

from vidcfg.guidance.rule import AwayFrom, Layers, rule
from vidcfg.settings.base import Finding, Range


@rule("autoguidance")
class Autoguidance(AwayFrom):
    """Move a weaker model's prediction towards, and past, the model's own, frame by frame.

        guided_f = cond_f + (strength_f - 1) * (cond_f - weak_f)

    The weak model sees the same condition. It is another checkpoint of the same class (a folder or
    repository, and the folder inside it where that is not the denoiser's own name), or the model
    itself degraded in a way that depends on nothing but these values; without any of them, the
    weak checkpoint that comes with the mini model. Strength 1 is off and runs no weak pass.

    `skip` are blocks that are left out. `noise` is the standard deviation of noise added to every
    weight, relative to that tensor's own, a function of `seed`. Weights are rounded to 2^`bits`
    levels between their extremes; None keeps them.

    Formula: c + (s - 1) (c - p), p: a weaker model, same prompt
    Passes: 2 (one of them of the weak model)
    Use: quality without loss of variety
    Source: Karras et al. 2024, arXiv:2406.02507.
    """

    checkpoint: Annotated[str, Field(min_length=1)] | None = None
    subfolder: Annotated[str, Field(min_length=1)] | None = None
    skip: Layers = ()
    noise: Annotated[float, Range(0, 10)] = 0.0
    bits: Annotated[int, Range(1, 16)] | None = None
    seed: Annotated[int, Range(0)] = 0

    def findings(self):
        if self.subfolder is not None and self.checkpoint is None:
            what = "has no effect without checkpoint. Name the checkpoint that holds the folder."
            yield Finding(("subfolder",), what)
        if self.seed and not self.noise:
            yield Finding(("seed",), "has no effect without noise.", is_error=False)

    @property
    def source(self) -> str | None:
        """The checkpoint of the weak model; None where the model itself is degraded."""
        is_degraded = self.skip or self.noise or self.bits is not None
        return self.checkpoint or (None if is_degraded else "mini")

    @property
    def branch(self) -> str:
        """`weak`, with the settings that are not the usual ones."""
        parts = ["weak"]
        parts += [] if self.source in ("mini", None) else [self.source]
        parts += [self.subfolder] if self.subfolder else []
        parts += ["skip=" + ",".join(map(str, self.skip))] if self.skip else []
        parts += [f"noise={self.noise:g}", f"seed={self.seed}"] if self.noise else []
        return "/".join(parts + ([] if self.bits is None else [f"bits={self.bits}"]))
