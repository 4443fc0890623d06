"""HunyuanVideo: true guidance beside the embedded scale, which stays the pipeline's own."""

from vidcfg.pipelines.family import Blocks, Family

FAMILY = Family(
    name="hunyuan_video",
    pipelines=(
        "HunyuanVideoPipeline",
        "HunyuanVideoImageToVideoPipeline",
        "HunyuanSkyreelsImageToVideoPipeline",
    ),
    frame_rule="4k + 1",
    tested="exact",
    texts={
        "encoder_hidden_states": "prompt_embeds",
        "encoder_attention_mask": "prompt_attention_mask",
        "pooled_projections": "pooled_prompt_embeds",
    },
    encoded=("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask"),
    own_guidance={"true_cfg_scale": 1.0},
    per_sample=("timestep", "guidance"),
    embedded=("guidance", 1000.0),
    blocks=Blocks(
        ("transformer_blocks", "single_transformer_blocks"),
        attention="attn",
        joint="after",
        returns=("hidden_states", "encoder_hidden_states"),
        layers={"stg": (2,)},
    ),
    size_multiple=16,
    default_scale=6.0,
    usual_range=(1.0, 7.0),
)
