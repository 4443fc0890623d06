"""Modality guidance."""

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.rule import AwayFrom, EitherConvention, rule


@rule("modality")
class Modality(AwayFrom, EitherConvention):
    """Guide away from a pass in which video and sound do not see each other.

    For models that make both (LTX-2). Strength 1 is off.

    Formula: c + (s - 1) (c - p), p: no cross-attention between video and sound
    Use: lips and steps that fit the sound
    Source: HaCohen et al. 2026, LTX-2, arXiv:2601.03233.
    """

    @property
    def change(self) -> Perturbation:
        return Perturbation("isolate", rule=self.kind)
