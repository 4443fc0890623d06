"""AnimateDiff: a Stable Diffusion UNet with motion modules; text rows repeated per frame."""

from vidcfg.guidance.frame_map import OneToOneMap
from vidcfg.pipelines.blocks import UNET
from vidcfg.pipelines.family import Family


def _refusal(pipe) -> str | None:
    if pipe.free_init_enabled:
        return "FreeInit repeats the denoising loop. Call pipe.disable_free_init() before."
    if pipe.free_noise_enabled:
        return "FreeNoise mixes prompts over frames. Call pipe.disable_free_noise() before."
    return None


FAMILY = Family(
    name="animatediff",
    pipelines=("AnimateDiffPipeline",),
    layout="BCFHW",
    frame_rule="one to one",
    tested="exact",
    frame_map=lambda pipe: OneToOneMap(),
    denoisers={"unet": None},
    hidden="sample",
    per_sample=(),
    texts={"encoder_hidden_states": "prompt_embeds"},
    encoded=("prompt_embeds", None),
    own_guidance={"guidance_scale": 1.0},
    stock_passes="batched",
    prediction=None,
    refusal=_refusal,
    blocks=UNET,
    size_multiple=8,
    default_scale=7.5,
    usual_range=(5.0, 9.0),
)
