"""Spatio-temporal skip guidance."""

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.rules.perturbed import Perturbed

MODES = {"attention": "identity", "residual": "drop", "block": "skip"}


def stg(*, mode: str = "attention", layers: tuple[int | str, ...] = ()) -> Perturbed:
    """Guide away from a pass that skips spatio-temporal attention in some layers.

        guided_f = cond_f + (strength_f - 1) (cond_f - perturbed_f)

    | mode        | what the layers do in the perturbed pass                                  |
    |-------------|---------------------------------------------------------------------------|
    | `attention` | the map is the identity: every video token keeps its own value            |
    | `residual`  | the attention adds nothing to the video tokens; cross-attention and MLP do |
    | `block`     | the whole block is left out, for text tokens too                          |

    `layers` are numbers or names of blocks, empty for the published ones: CogVideoX 11,
    HunyuanVideo 2, LTX 19, LTX-2 28, Mochi 34, Wan 2. Strength 1 is off.

    Raises:
        ValueError: for another mode.

    Source: Hyung et al. 2024, arXiv:2411.18664.
    """
    if mode not in MODES:
        raise ValueError(f"stg.mode is {mode!r}. Use one of: {', '.join(MODES)}.")
    return Perturbed(Perturbation(MODES[mode], tuple(layers), "stg"))
