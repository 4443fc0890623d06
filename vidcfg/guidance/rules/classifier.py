"""Classifier guidance: along the gradient of a noise-aware log-probability."""

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rule import EitherConvention, Rows, rule


@rule("classifier")
class Classifier(EitherConvention):
    """Add the gradient of a log-probability of the noisy latents to the prediction.

        score'_f = score_f + (strength_f - 1) grad_x log p(y | x_t)_f,  score = -eps / sigma

    so eps moves by -sigma (strength - 1) grad, and other kinds of prediction by what that means
    for them. The branch `classifier` is not a model evaluation but this shift at strength 2. On
    pure noise (alpha 0), which tells nothing of y, it is 0. Strength 1 is off and takes no
    gradient.

    Formula: score + (s - 1) grad log p(y | x_t); the function is passed to `vidcfg.guide`
    Passes: 1, and a gradient
    Use: a condition that the model does not know
    Source: Dhariwal & Nichol 2021, arXiv:2105.05233.
    """

    branches = ("cond", "classifier")
    base = "cond"
    isolated = frozenset({"classifier"})

    @property
    def compares(self) -> bool:
        return True

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"classifier": strength - 1}

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        """cond + w shift, as strength * cond + w (shift - cond), since `shift` is a difference."""
        push = strength - 1
        return Combination("cond", strength, {"classifier": push}, push == 0)
