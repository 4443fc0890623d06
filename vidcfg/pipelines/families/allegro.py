"""Allegro: each latent frame makes four pixel frames, one batched call."""

from vidcfg.guidance.frame_map import BlockMap
from vidcfg.pipelines.family import MASKED_TEXTS, Blocks, Family

FAMILY = Family(
    name="allegro",
    pipelines=("AllegroPipeline",),
    frame_rule="4k",
    tested="exact",
    frame_map=lambda pipe: BlockMap(pipe.vae_scale_factor_temporal),
    **MASKED_TEXTS,
    stock_passes="batched",
    prediction=None,
    blocks=Blocks(),
    size_multiple=16,
    default_scale=7.5,
    usual_range=(5.0, 9.0),
)
