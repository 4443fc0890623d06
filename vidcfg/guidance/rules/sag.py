"""Self-attention guidance."""

from vidcfg.guidance.rule import PerturbedLayers, rule
from vidcfg.settings.base import Finding, Positive


@rule("sag")
class Sag(PerturbedLayers):
    """Guide away from what the model makes of its own estimate, blurred where it looks most.

        x0 = estimate of the clean latents from `cond`
        x0' = Gaussian blur of x0 within each frame, in the places whose received attention
              exceeds `threshold` times the mean
        x_t' = alpha x0' + sigma eps,  eps of `cond`
        perturbed = the prediction that has, at x_t, the noise which the model predicts at x_t'
        guided_f = cond_f + (strength_f - 1) (cond_f - perturbed_f)

    `blur` is the width of the Gaussian in latent pixels; `layers` holds the one block whose
    attention is read, by number or name, empty for the family's own. `cond` is run wherever the
    perturbed pass is. On pure noise, where there is no estimate, the result is `cond`. Strength 1
    is off.

    Formula: c + (s - 1) (c - p), p: from an estimate blurred where the model looks
    Use: finer detail
    Source: Hong et al. 2022, arXiv:2210.00939.
    """

    follows_cond = True

    blur: Positive = 1.0
    threshold: Positive = 1.0

    def findings(self):
        if len(self.layers) > 1:
            yield Finding(("layers",), f"names {len(self.layers)} layers. Name the one to read.")

    @property
    def branch(self) -> str:
        """`perturbed:sag`, with the settings that are not the usual ones."""
        parts = ["perturbed:sag"]
        parts += [f"blur={self.blur:g}"] if self.blur != 1 else []
        parts += [f"threshold={self.threshold:g}"] if self.threshold != 1 else []
        return "/".join([*parts, *map(str, self.layers)])
