"""Mochi: one batched call, combined in float32, reversed time."""

from vidcfg.pipelines.family import MASKED_TEXTS, Blocks, Family

FAMILY = Family(
    name="mochi",
    pipelines=("MochiPipeline",),
    frame_rule="6k + 1",
    tested="exact",
    checkpoints={"genmo/mochi-1-preview": ("MochiPipeline", {"vae_temporal_scale_factor": 6})},
    **MASKED_TEXTS,
    stock_passes="batched",
    combines_in_float32=True,
    prediction="flow_reversed",
    blocks=Blocks(
        joint="after",
        returns=("hidden_states", "encoder_hidden_states"),
        layers={"stg": (34,)},
    ),
    size_multiple=16,
    default_scale=4.5,
    usual_range=(3.0, 7.0),
)
