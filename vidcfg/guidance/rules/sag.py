"""Self-attention guidance."""

from vidcfg.guidance.perturbation import Degradation
from vidcfg.guidance.rules.perturbed import Perturbed


def sag(
    *, blur: float = 1.0, threshold: float = 1.0, layers: tuple[int | str, ...] = ()
) -> Perturbed:
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

    Raises:
        ValueError: for a blur that is not above 0, or more than one layer.

    Source: Hong et al. 2022, arXiv:2210.00939.
    """
    if blur <= 0:
        raise ValueError(f"sag.blur is {blur}. Use a number above 0, in latent pixels.")
    if len(layers) > 1:
        raise ValueError(f"sag reads the attention of one layer. Give one: layers: [{layers[0]}].")
    return Perturbed(Degradation(float(blur), float(threshold), tuple(layers)))
