"""Wan 2.1 and 2.2, text and image to video: two sequential passes, cond first.

Wan 2.2 changes the model at a noise level: `high` above it, `low` below. TI2V-5B gives every token
a timestep of its own. Image to video puts the image behind the latents, as further channels.
"""

from vidcfg.pipelines.family import Blocks, Family


def _expert(pipe, timestep: float) -> str | None:
    """`high` above the boundary noise level, `low` below it; None for a single model."""
    ratio = pipe.config.get("boundary_ratio")
    if ratio is None:
        return None
    boundary = ratio * pipe.scheduler.config.num_train_timesteps
    return "high" if timestep >= boundary else "low"


FAMILY = Family(
    name="wan",
    pipelines=("WanPipeline", "WanImageToVideoPipeline"),
    frame_rule="4k + 1",
    tested="exact",
    denoisers={"transformer": "high", "transformer_2": "low"},
    per_sample=("timestep", "encoder_hidden_states_image"),
    expert_of=_expert,
    own_guidance={"guidance_scale": 1.0, "guidance_scale_2": 1.0},
    blocks=Blocks(("blocks",), layers={"stg": (2,), "slg": (10,)}),
    size_multiple=16,
    default_scale=5.0,
    usual_range=(3.0, 7.0),
)
