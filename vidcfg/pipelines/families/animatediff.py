"""AnimateDiff: a Stable Diffusion UNet with motion modules; text rows repeated per frame."""

from dataclasses import replace

from vidcfg.pipelines.families.stable_diffusion import SDXL
from vidcfg.pipelines.families.unet import UNET
from vidcfg.pipelines.family import Adapter, Family


def _refusal(pipe, call) -> str | None:
    if getattr(pipe, "free_noise_enabled", False):
        return "FreeNoise mixes prompts over frames. Call pipe.disable_free_noise() before."
    return None


def _scheduler(scheduler):
    """DDIM with the noise schedule that motion adapters are trained with.

    Source: the AnimateDiff page of diffusers.
    """
    from diffusers import DDIMScheduler

    trained = {"beta_schedule": "linear", "timestep_spacing": "linspace", "clip_sample": False}
    return DDIMScheduler.from_config(scheduler.config, **trained, steps_offset=1)


FAMILY = Family(
    **UNET,
    name="animatediff",
    pipelines=(
        "AnimateDiffPipeline",
        "AnimateDiffVideoToVideoPipeline",
        "AnimateDiffPAGPipeline",
        "PIAPipeline",
    ),
    frame_rule="one to one",
    tested="exact",
    per_sample=(),
    own_guidance={"guidance_scale": 1.0, "pag_scale": 0.0},
    adapter=Adapter("motion_adapter", "MotionAdapter", _scheduler),
    refusal=_refusal,
    decodes_together=True,
    default_scale=7.5,
    usual_range=(5.0, 9.0),
)

ANIMATEDIFF_SDXL = replace(
    FAMILY,
    name="animatediff_sdxl",
    pipelines=("AnimateDiffSDXLPipeline",),
    per_sample=SDXL.per_sample,
    texts=SDXL.texts,
    encoded=SDXL.encoded,
    finish_texts=SDXL.finish_texts,
    own_guidance=SDXL.own_guidance,
    adapter=None,
)


def _guess_mode(pipe, call) -> str | None:
    first = getattr(pipe.controlnet, "nets", [pipe.controlnet])[0]
    if call.get("guess_mode") or first.config.global_pool_conditions:
        return (
            "a ControlNet in guess mode runs for one of the two passes alone. Pass "
            "guess_mode=False, and use one whose config has no global_pool_conditions."
        )
    return _refusal(pipe, call)


CONTROL = replace(
    FAMILY,
    name="animatediff_control",
    pipelines=(
        "AnimateDiffControlNetPipeline",
        "AnimateDiffSparseControlNetPipeline",
        "AnimateDiffVideoToVideoControlNetPipeline",
    ),
    control="controlnet",
    texts=FAMILY.texts | {"controlnet.encoder_hidden_states": "prompt_embeds"},
    per_sample=("controlnet.sample", "controlnet.controlnet_cond", "controlnet.conditioning_mask"),
    adapter=None,
    refusal=_guess_mode,
)
