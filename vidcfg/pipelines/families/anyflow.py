"""AnyFlow: Wan with frames before channels, and a flow from one noise level to another."""

from dataclasses import replace

from vidcfg.pipelines.families import wan
from vidcfg.pipelines.family import ONE_MODEL, STRIDE_4

FAMILY = replace(
    wan.FAMILY,
    name="anyflow",
    pipelines=("AnyFlowPipeline",),
    checkpoints={"nvidia/AnyFlow-Wan2.1-T2V-*-Diffusers": ("AnyFlowPipeline", STRIDE_4)},
    layout="BFCHW",
    **ONE_MODEL,
    per_sample=("timestep", "r_timestep"),
    stock_passes="batched",
    has_levels=False,
    default_scale=1.0,
    usual_range=(1.0, 6.0),
)
