"""SkyReels-V2: Wan under another name, with one model.

In diffusion forcing the frames have noise levels of their own.
"""

from dataclasses import replace

import numpy as np

from vidcfg.pipelines.families import wan
from vidcfg.pipelines.family import ONE_MODEL, STRIDE_4, FrameLevels

FAMILY = replace(
    wan.FAMILY,
    name="skyreels_v2",
    pipelines=("SkyReelsV2Pipeline", "SkyReelsV2ImageToVideoPipeline"),
    checkpoints={"Skywork/SkyReels-V2-T2V-*-Diffusers": ("SkyReelsV2Pipeline", STRIDE_4)},
    **ONE_MODEL,
    default_scale=6.0,
    usual_range=(3.0, 8.0),
)


def _levels(told) -> tuple[np.ndarray, np.ndarray]:
    """From timesteps, places in their list (1 is the first step), what is denoised, windows."""
    timesteps_NF, places_NF, is_denoised_NF, windows = told
    if any(window != (0, places_NF.shape[1]) for window in windows):
        raise ValueError(
            "this call shows its denoiser a part of the frames at a time, and a surface is for "
            "all. Use a base_num_frames that is not below num_frames."
        )
    steps_NF = np.where(is_denoised_NF.cpu().numpy(), places_NF.cpu().numpy() - 1, -1)
    return timesteps_NF.cpu().numpy(), steps_NF


def _chunks(pipe, call) -> str | None:
    if call["overlap_history"] is not None and call["num_frames"] > call["base_num_frames"]:
        return (
            "num_frames above base_num_frames are made in several denoising loops, and a surface "
            "is for one. Use a base_num_frames that is not below num_frames."
        )
    return None


DIFFUSION_FORCING = replace(
    FAMILY,
    name="skyreels_v2_df",
    pipelines=(
        "SkyReelsV2DiffusionForcingPipeline",
        "SkyReelsV2DiffusionForcingImageToVideoPipeline",
        "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
    ),
    frame_levels=FrameLevels("generate_timestep_matrix", _levels),
    length_argument="num_frames",
    others="after",  # the last image
    refusal=_chunks,
)
