"""Sana Video, text and image to video: one batched call, combined in float32."""

from vidcfg.pipelines.family import Blocks, Family

FAMILY = Family(
    name="sana_video",
    pipelines=("SanaVideoPipeline", "SanaImageToVideoPipeline"),
    frame_rule="4k + 1",
    tested="exact",
    texts={
        "encoder_hidden_states": "prompt_embeds",
        "encoder_attention_mask": "prompt_attention_mask",
    },
    encoded=("prompt_embeds", "prompt_attention_mask", None, None),
    stock_passes="batched",
    combines_in_float32=True,
    learns_variance=True,
    blocks=Blocks(("transformer_blocks",)),
    size_multiple=32,
    default_scale=6.0,
    usual_range=(4.0, 8.0),
)
