"""Sana Video, text and image to video: one batched call, combined in float32."""

from vidcfg.pipelines.family import MASKED_TEXTS, Blocks, Family

FAMILY = Family(
    name="sana_video",
    pipelines=("SanaVideoPipeline", "SanaImageToVideoPipeline"),
    frame_rule="4k + 1",
    tested="exact",
    **MASKED_TEXTS,
    stock_passes="batched",
    combines_in_float32=True,
    learns_variance=True,
    blocks=Blocks(),
    size_multiple=32,
    default_scale=6.0,
    usual_range=(4.0, 8.0),
)
