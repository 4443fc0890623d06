"""Motif Video, text and image to video: its guider is switched off, sequential passes."""

from vidcfg.pipelines.family import MASKED_TEXTS, Family

FAMILY = Family(
    name="motif_video",
    pipelines=("MotifVideoPipeline", "MotifVideoImage2VideoPipeline"),
    frame_rule="4k + 1",
    tested="exact",
    texts=MASKED_TEXTS["texts"],
    encoded=("prompt_embeds", None, "prompt_attention_mask", None),
    guider="guider",
    own_guidance={},
    per_sample=("timestep", "image_embeds"),
    size_multiple=16,
    default_scale=8.0,
    usual_range=(4.0, 10.0),
)
