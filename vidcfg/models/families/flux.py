"""Flux.1: one image as packed tokens; true guidance beside the embedded scale."""

from vidcfg.guidance.frame_map import OneToOneMap
from vidcfg.models.families.family import Family

FAMILY = Family(
    name="flux",
    pipelines=("FluxPipeline",),
    layout="tokens",
    frame_rule="one image",
    tested="exact",
    frame_map=lambda pipe: OneToOneMap(),
    latent_frames=lambda arguments: 1,
    texts={
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
    },
    encoded=("prompt_embeds", "pooled_prompt_embeds", None),
    own_guidance={"true_cfg_scale": 1.0},
    per_sample=("timestep", "guidance"),
    is_image=True,
    default_scale=3.5,
    usual_range=(1.5, 5.0),
)
