"""What pipelines around a UNet of Stable Diffusion have in common. No family by itself."""

from typing import Any

from vidcfg.guidance.frame_map import OneToOneMap
from vidcfg.pipelines.family import Blocks, ImagePrompt


def _mid_grid(module: Any, arguments: Any, layer: int) -> tuple[int, int, int]:
    """The middle of a UNet sees each frame by itself, halved (rounding up) per level."""
    height, width = arguments["sample"].shape[-2:]
    for _ in module.config.block_out_channels[1:]:
        height, width = -(-height // 2), -(-width // 2)
    return 1, height, width


UNET: dict[str, Any] = {
    "frame_map": lambda pipe: OneToOneMap(),
    "denoisers": {"unet": None},
    "hidden": "sample",
    "stock_passes": "batched",
    "prediction": None,
    "image_prompt": ImagePrompt("added_cond_kwargs.image_embeds"),
    "constants": ("cross_attention_kwargs.ip_adapter_masks",),
    # The middle block, where perturbed attention guidance of images acts.
    "blocks": Blocks(
        lists=("mid_block.attentions.0.transformer_blocks",),
        layers={"stg": "all"},
        grid=_mid_grid,
    ),
    "size_multiple": 8,
}
