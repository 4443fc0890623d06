"""Where a denoiser keeps its transformer blocks, for the rules that perturb them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Blocks:
    """The blocks of a denoiser, and how tokens run through them.

    Args:
        lists: paths of the lists of blocks; layer i counts through all of them in this order.
        attention: attribute of a block that holds the attention over video tokens.
        joint: where text tokens stand in that attention: "before" or "after" the video tokens,
            None where video tokens are alone.
        returns: the block's arguments that a skipped block hands on, in the order of its results.
        layers: rule -> layers that are perturbed where the user names none. "stg" serves the rules
            that are not listed; without it, the middle layer does. "all" means every layer.
        grid: (denoiser, its arguments, layer) -> token grid (F, H, W) of that layer; None reads it
            from the latents and the patch size of the denoiser's config.
    """

    lists: tuple[str, ...]
    attention: str = "attn1"
    joint: str | None = None
    returns: tuple[str, ...] = ("hidden_states",)
    layers: Mapping[str, tuple[int, ...] | str] = field(default_factory=dict)
    grid: Callable[[Any, Mapping[str, Any], int], Grid] | None = None


def _mid_grid(module: Any, arguments: Mapping[str, Any], layer: int) -> Grid:
    """The middle of a UNet sees each frame by itself, halved (rounding up) per level."""
    height, width = arguments["sample"].shape[-2:]
    for _ in module.config.block_out_channels[1:]:
        height, width = -(-height // 2), -(-width // 2)
    return 1, height, width


UNET = Blocks(
    lists=("mid_block.attentions.0.transformer_blocks",),
    layers={"stg": "all"},
    grid=_mid_grid,
)
"""The middle block of a UNet, where perturbed attention guidance of images acts."""
