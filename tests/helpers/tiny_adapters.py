"""IP-Adapters with random weights for the tiny pipelines that take image prompts."""

import torch
from tiny_base import TinyPipeline, image_processor, random, vision_encoder
from torch import Tensor

WIDTH = 16
"""Of an image embedding."""


def with_image_prompts(tiny: TinyPipeline, count: int = 1) -> list[Tensor]:
    """Load `count` adapters into a pipeline; one image embedding [1, 1, WIDTH] for each."""
    model = tiny.denoiser
    is_flux = tiny.scale_argument == "true_cfg_scale"
    make = _flux_weights if is_flux else _unet_weights
    model._load_ip_adapter_weights(
        [make(model, seed) for seed in range(count)], low_cpu_mem_usage=False
    )
    if is_flux:  # encodes a black image for its unconditional side
        tiny.pipe.register_modules(
            image_encoder=vision_encoder(WIDTH, projected=True),
            feature_extractor=image_processor(),
        )
    return [random(1, 1, WIDTH, seed=20 + i) for i in range(count)]


def as_stock(tiny: TinyPipeline, embeds: list[Tensor]) -> list[Tensor]:
    """The embeddings as the pipeline takes them while its own guidance is on."""
    if tiny.scale_argument == "true_cfg_scale":
        return embeds
    return [torch.cat([torch.zeros_like(each), each]) for each in embeds]


def _projection(width: int, seed: int) -> dict[str, Tensor]:
    return {
        "proj.weight": random(4 * width, WIDTH, seed=seed) * 0.3,
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }


def _unet_weights(unet, seed: int) -> dict:
    width, channels = unet.config.cross_attention_dim, unet.config.block_out_channels
    names = [n for n in unet.attn_processors if "attn2" in n and "motion_modules" not in n]
    weights = {}
    for i, name in enumerate(names):
        kind, *place = name.split(".")
        sizes = {"mid_block": channels[-1:], "up_blocks": channels[::-1]}.get(kind, channels)
        size = sizes[0 if kind == "mid_block" else int(place[0])]
        for part in ("k", "v"):
            weights[f"{2 * i + 1}.to_{part}_ip.weight"] = random(size, width, seed=seed + i) * 0.3
    return {"image_proj": _projection(width, seed), "ip_adapter": weights}


def _flux_weights(model, seed: int) -> dict:
    width, size = model.config.joint_attention_dim, model.inner_dim
    weights = {}
    for i in range(model.config.num_layers):
        for part in ("k", "v"):
            weights[f"{i}.to_{part}_ip.weight"] = random(size, width, seed=seed + i) * 0.3
            weights[f"{i}.to_{part}_ip.bias"] = torch.zeros(size)
    return {"image_proj": _projection(width, seed), "ip_adapter": weights}
