"""Stable Video Diffusion: conditioned on an image, one latent a frame, frames before channels."""

import torch

from vidcfg.pipelines.families.unet import UNET
from vidcfg.pipelines.family import Family

_LATENT_CHANNELS = 4


def _zero_image(arguments) -> dict[str, torch.Tensor]:
    """The unconditional inputs: image latents (behind the noisy ones) and embeddings are zero."""
    sample = arguments["sample"].clone()
    sample[:, :, _LATENT_CHANNELS:] = 0
    embeddings = arguments["encoder_hidden_states"]
    return {"sample": sample, "encoder_hidden_states": torch.zeros_like(embeddings)}


FAMILY = Family(
    **UNET,
    name="svd",
    pipelines=("StableVideoDiffusionPipeline",),
    layout="BFCHW",
    frame_rule="one to one",
    tested="exact",
    checkpoints={
        "stabilityai/stable-video-diffusion-img2vid*": ("StableVideoDiffusionPipeline", {})
    },
    per_sample=("added_time_ids",),
    texts={},
    encoded=(),
    unconditional=_zero_image,
    own_guidance={"min_guidance_scale": 1.0, "max_guidance_scale": 1.0},
    fps_argument="fps",
    fps_is_whole=True,
    decodes_together=True,
    default_scale=3.0,
    usual_range=(1.5, 4.0),
)
