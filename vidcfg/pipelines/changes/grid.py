"""The (frames, rows, columns) in which the video tokens of a denoiser call stand."""

from collections.abc import Mapping
from math import prod
from typing import Any

from vidcfg.pipelines.blocks import Grid
from vidcfg.pipelines.family import Family


def token_grid(family: Family, module: Any, arguments: Mapping[str, Any], layer: int = 0) -> Grid:
    """The token grid (F, H, W) of one layer; tokens run with columns fastest, then rows.

    Raises:
        ValueError: if the arguments do not tell the grid.
    """
    if family.blocks is not None and family.blocks.grid is not None:
        return family.blocks.grid(module, arguments, layer)
    hidden = arguments[family.hidden]
    if family.layout == "tokens":
        sizes = tuple(arguments.get(name) for name in ("num_frames", "height", "width"))
        if None in sizes or prod(sizes) != hidden.shape[1]:
            raise ValueError(
                f"the token grid of this {type(module).__name__} is not known: it got "
                f"{hidden.shape[1]} tokens and num_frames, height, width {sizes}."
            )
        return sizes
    frames = family.frame_layout.num_frames(hidden)
    patch_t, patch_h, patch_w = _patch(module.config)
    return frames // patch_t, hidden.shape[-2] // patch_h, hidden.shape[-1] // patch_w


def _patch(config: Any) -> tuple[int, int, int]:
    """Latent frames, rows and columns per token."""
    size = getattr(config, "patch_size", None) or 1
    if not isinstance(size, int):
        return tuple(size)
    return getattr(config, "patch_size_t", None) or 1, size, size
