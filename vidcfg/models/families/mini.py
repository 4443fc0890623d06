"""The embedded mini model: laid out and stepped as Wan."""

from vidcfg.guidance.frame_map import CausalMap
from vidcfg.models.families.family import Family

FAMILY = Family(
    name="mini",
    pipelines=("MiniVideoPipeline",),
    layout="BCFHW",
    frame_rule="4k + 1",
    tested="exact",
    frame_map=lambda pipe: CausalMap(pipe.vae_scale_factor_temporal),
    texts={
        "encoder_hidden_states": "prompt_embeds",
        "encoder_attention_mask": "prompt_attention_mask",
    },
    encoded=("prompt_embeds", "prompt_attention_mask", None, None),
    own_guidance={"guidance_scale": 1.0},
    default_scale=3.0,
    usual_range=(1.0, 12.0),
)
