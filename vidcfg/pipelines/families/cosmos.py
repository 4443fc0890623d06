"""Cosmos 1, 2 and 2.5: the denoiser's output is preconditioned outside of it.

The pipelines combine clean videos, or flows, that are linear in that output with the same
coefficients for both passes, so guiding the output is the same. Their scale s guides by
cond + s (cond - uncond): it is 1 less than ours.
"""

from dataclasses import replace

from vidcfg.pipelines.family import Blocks, Family

COSMOS = Family(
    name="cosmos",
    pipelines=("CosmosTextToWorldPipeline",),
    frame_rule="8k + 1",
    tested="close",
    per_sample=("timestep", "condition_mask"),
    constants=("padding_mask",),
    has_levels=False,
    fps_argument="fps",
    fps_is_whole=True,
    blocks=Blocks(),
    size_multiple=16,
    default_scale=8.0,
    usual_range=(5.0, 10.0),
)


def _sigma_ratio(timesteps, scheduler):
    """sigma / (sigma + 1) of each."""
    sigmas = timesteps / scheduler.config.num_train_timesteps
    return sigmas / (sigmas + 1)


COSMOS2 = replace(
    COSMOS,
    name="cosmos2",
    pipelines=("Cosmos2VideoToWorldPipeline",),
    model_timesteps=_sigma_ratio,
    frame_rule="4k + 1",
)

COSMOS25 = replace(
    COSMOS,
    name="cosmos2_5",
    pipelines=("Cosmos2_5_PredictBasePipeline",),
    model_timesteps=lambda timesteps, scheduler: scheduler.sigmas[: len(timesteps)].to(timesteps),
    frame_rule="4k + 1",
    fps_argument=None,
    fps_is_whole=False,
)
