"""AnimateDiff: a Stable Diffusion UNet with motion modules; text rows repeated per frame."""

from vidcfg.pipelines.families.unet import UNET
from vidcfg.pipelines.family import Adapter, Family


def _refusal(pipe) -> str | None:
    if pipe.free_noise_enabled:
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
    pipelines=("AnimateDiffPipeline",),
    frame_rule="one to one",
    tested="exact",
    per_sample=(),
    adapter=Adapter("motion_adapter", "MotionAdapter", _scheduler),
    refusal=_refusal,
    decodes_together=True,
    default_scale=7.5,
    usual_range=(5.0, 9.0),
)
