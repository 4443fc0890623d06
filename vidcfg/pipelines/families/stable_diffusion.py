"""Stable Diffusion 1.5, SDXL and SD3: images as one-frame videos, one batched call."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from vidcfg.pipelines.families.unet import UNET
from vidcfg.pipelines.family import POOLED_TEXTS, Blocks, Family, one_to_one


def _takes_scale(pipe) -> bool:
    """LCM-distilled UNets embed the guidance scale beside the timestep."""
    # A folder may come without its UNet; a dry run then still knows the frames.
    config = getattr(getattr(pipe, "unet", None), "config", {})
    return config.get("time_cond_proj_dim") is not None


SD15 = Family(
    **UNET,
    name="sd15",
    pipelines=("StableDiffusionPipeline",),
    checkpoints={"stable-diffusion-v1-5/stable-diffusion-v1-5": ("StableDiffusionPipeline", {})},
    layout="BCHW",
    frame_rule="one image",
    tested="exact",
    per_sample=("timestep_cond",),
    embeds_scale=_takes_scale,
    own_guidance={"guidance_scale": 1.0, "guidance_rescale": 0.0},
    is_image=True,
    default_scale=7.5,
    usual_range=(5.0, 12.0),
)


def _zeros_for_empty(
    pipe, inputs: Mapping[str, torch.Tensor], texts: list[str] | None
) -> dict[str, torch.Tensor]:
    """SDXL base was trained with zeros, not with the encoded empty text, as its null."""
    if texts is None or any(texts) or not pipe.config.force_zeros_for_empty_prompt:
        return dict(inputs)
    return {name: torch.zeros_like(tensor) for name, tensor in inputs.items()}


SDXL = replace(
    SD15,
    name="sdxl",
    pipelines=("StableDiffusionXLPipeline",),
    checkpoints={"stabilityai/stable-diffusion-xl-base-1.0": ("StableDiffusionXLPipeline", {})},
    per_sample=("timestep_cond", "added_cond_kwargs.time_ids"),
    texts={
        "encoder_hidden_states": "prompt_embeds",
        "added_cond_kwargs.text_embeds": "pooled_prompt_embeds",
    },
    encoded=("prompt_embeds", None, "pooled_prompt_embeds", None),
    finish_texts=_zeros_for_empty,
    default_scale=7.0,
    usual_range=(5.0, 10.0),
)

SD3 = Family(
    name="sd3",
    pipelines=("StableDiffusion3Pipeline",),
    checkpoints={
        "stabilityai/stable-diffusion-3-medium-diffusers": ("StableDiffusion3Pipeline", {})
    },
    layout="BCHW",
    frame_rule="one image",
    tested="exact",
    frame_map=one_to_one,
    texts=POOLED_TEXTS,
    encoded=SDXL.encoded,
    own_guidance={"guidance_scale": 1.0, "skip_guidance_layers": None},
    stock_passes="batched",
    blocks=Blocks(
        attention="attn",
        joint="after",
        returns=("encoder_hidden_states", "hidden_states"),
        layers={"slg": (7, 8, 9)},
    ),
    is_image=True,
    size_multiple=16,
    default_scale=7.0,
    usual_range=(3.5, 8.0),
)
