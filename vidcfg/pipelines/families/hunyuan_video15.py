"""HunyuanVideo-1.5: its guider is switched off, two text encoders, two sequential passes."""

from vidcfg.pipelines.family import STRIDE_4, Blocks, Family, modular

FAMILY = Family(
    name="hunyuan_video15",
    pipelines=("HunyuanVideo15Pipeline", "HunyuanVideo15ImageToVideoPipeline"),
    frame_rule="4k + 1",
    tested="exact",
    checkpoints={
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-*_t2v": (
            "HunyuanVideo15Pipeline",
            STRIDE_4,
        )
    },
    texts={
        "encoder_hidden_states": "prompt_embeds",
        "encoder_attention_mask": "prompt_embeds_mask",
        "encoder_hidden_states_2": "prompt_embeds_2",
        "encoder_attention_mask_2": "prompt_embeds_mask_2",
    },
    encoded=("prompt_embeds", "prompt_embeds_mask", "prompt_embeds_2", "prompt_embeds_mask_2"),
    guider="guider",
    own_guidance={},
    per_sample=("timestep", "timestep_r", "image_embeds"),
    blocks=Blocks(
        attention="attn",
        joint="after",
        returns=("hidden_states", "encoder_hidden_states"),
    ),
    size_multiple=16,
    default_scale=6.0,
    usual_range=(1.0, 8.0),
)

MODULAR = modular(FAMILY, "HunyuanVideo15ModularPipeline", length_argument="num_frames")
