"""Wan 2.1 and 2.2, text and image to video: two sequential passes, cond first.

Wan 2.2 changes the model at a noise level: `high` above it, `low` below. TI2V-5B gives every token
a timestep of its own. Image to video puts the image behind the latents, as further channels.
VACE puts reference images before the video, as further latent frames, and so does Animate with the
image of its character; Animate also blanks the face in the unconditional pass.
"""

from dataclasses import replace

import numpy as np

from vidcfg.pipelines.family import ONE_MODEL, STRIDE_4, Blocks, Family, modular


def _expert(pipe, timestep: float) -> str | None:
    """`high` above the boundary noise level, `low` below it; None for a single model."""
    ratio = pipe.config.get("boundary_ratio")
    if ratio is None:
        return None
    boundary = ratio * pipe.scheduler.config.num_train_timesteps
    return "high" if timestep >= boundary else "low"


FAMILY = Family(
    name="wan",
    pipelines=(
        "WanPipeline",
        "WanImageToVideoPipeline",
        "WanVideoToVideoPipeline",
        "LucyEditPipeline",
    ),
    frame_rule="4k + 1",
    tested="exact",
    checkpoints={
        "Wan-AI/Wan2.[12]-T2V-*-Diffusers": ("WanPipeline", STRIDE_4),
        "Wan-AI/Wan2.2-TI2V-*-Diffusers": ("WanPipeline", STRIDE_4),
        "Wan-AI/Wan2.[12]-I2V-*-Diffusers": ("WanImageToVideoPipeline", STRIDE_4),
    },
    denoisers={"transformer": "high", "transformer_2": "low"},
    per_sample=("timestep", "encoder_hidden_states_image"),
    expert_of=_expert,
    own_guidance={"guidance_scale": 1.0, "guidance_scale_2": 1.0},
    blocks=Blocks(("blocks",), layers={"stg": (2,), "slg": (10,)}),
    size_multiple=16,
)

VACE = replace(
    FAMILY,
    name="wan_vace",
    pipelines=("WanVACEPipeline",),
    per_sample=("timestep", "control_hidden_states"),
    constants=(*FAMILY.constants, "control_hidden_states_scale"),  # one for each of its layers
    length_argument="num_frames",
    others="before",
    frame_rule="4k + 1, behind images",
)


def _segment(pipe, call, number: int) -> tuple[int, np.ndarray]:
    """Each segment begins with the last frames of the one before; the last may be padded."""
    count, length = len(call["pose_video"]), call["segment_frame_length"]
    begin = number * (length - call["prev_segment_conditioning_frames"])
    return count, np.minimum(np.arange(begin, begin + length), count - 1)


ANIMATE = replace(
    FAMILY,
    name="wan_animate",
    pipelines=("WanAnimatePipeline",),
    **ONE_MODEL,
    per_sample=("timestep", "encoder_hidden_states_image", "pose_hidden_states"),
    unconditional=lambda arguments: {"face_pixel_values": arguments["face_pixel_values"] * 0 - 1},
    length_argument="segment_frame_length",
    others="before",
    frame_rule="4k + 1, behind an image",
    part=_segment,
    default_scale=3.0,
    usual_range=(1.0, 5.0),
)


def _temporal_reasoning(pipe, call) -> str | None:
    if call.get("enable_temporal_reasoning"):
        return (
            "ChronoEdit drops all frames but the first and the last after "
            "num_temporal_reasoning_steps, and a surface is for one number of frames. "
            "Pass enable_temporal_reasoning=False."
        )
    return None


CHRONO_EDIT = replace(
    FAMILY,
    name="chronoedit",
    pipelines=("ChronoEditPipeline",),
    **ONE_MODEL,
    refusal=_temporal_reasoning,
)

MODULAR = modular(
    FAMILY,
    "WanModularPipeline",
    "WanImage2VideoModularPipeline",
    "Wan22ModularPipeline",
    "Wan22Image2VideoModularPipeline",
    guiders=("guider", "guider_2"),
)
VACE_MODULAR = modular(VACE, "Wan22VaceModularPipeline", guiders=("guider", "guider_2"))
