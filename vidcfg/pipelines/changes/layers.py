"""The blocks of a denoiser that a rule acts on, the grid of their tokens, and a blur over it."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.pipelines.family import Blocks, Family, Grid


@dataclass(frozen=True)
class Layer:
    """One transformer block: its number through all lists, its name in the denoiser, itself."""

    index: int
    name: str
    block: Any


def all_layers(module: Any, blocks: Blocks) -> list[Layer]:
    """Every block of a denoiser, in the order in which layers count."""
    named = ((f"{p}.{i}", b) for p in blocks.lists for i, b in enumerate(module.get_submodule(p)))
    return [Layer(index, name, block) for index, (name, block) in enumerate(named)]


def find_layers(module: Any, blocks: Blocks, perturbation: Perturbation) -> list[Layer]:
    """The blocks that a perturbation names, or the family's own choice for its rule.

    Raises:
        ValueError: for a layer that this model does not have, with the ones that it has.
    """
    layers = all_layers(module, blocks)
    usual = blocks.layers.get(perturbation.rule, blocks.layers.get("stg"))
    wanted = perturbation.layers or usual or (len(layers) // 2,)
    if wanted == "all":
        return layers
    by_key = {key: layer for layer in layers for key in (layer.index, layer.name)}
    missing = [key for key in wanted if key not in by_key]
    if missing:
        known = ", ".join(f"{layer.index} ({layer.name})" for layer in layers)
        why = "" if perturbation.layers else "which is the usual one of this family, "
        raise ValueError(
            f"{perturbation.rule} perturbs layer {', '.join(map(str, missing))}, {why}but this "
            f"{type(module).__name__} has the layers {known}. Give some of them, by number or by "
            f"name: layers: [{len(layers) // 2}]."
        )
    return [by_key[key] for key in dict.fromkeys(wanted)]


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
    # Latent frames, rows and columns per token.
    patch = getattr(module.config, "patch_size", None) or 1
    if isinstance(patch, int):
        patch = (getattr(module.config, "patch_size_t", None) or 1, patch, patch)
    sizes = (family.frame_layout.num_frames(hidden), *hidden.shape[-2:])
    return tuple(size // per_token for size, per_token in zip(sizes, patch))


def token_split(module: Any) -> tuple[int, int]:
    """Over how many processes a model splits its tokens (context parallelism), by ring and by
    Ulysses; (1, 1): none."""
    config = getattr(module, "_parallel_config", None)
    split = getattr(config, "context_parallel_config", None)
    return (1, 1) if split is None else (split.ring_degree, split.ulysses_degree)


def blur_matrix(size: int, sigma: float, device: torch.device) -> Float[Tensor, "size size"]:
    """Row i holds the normalised weights exp(-(i - j)^2 / (2 sigma^2)) of a Gaussian around i.

    At an edge the weights inside are normalised to 1. An infinite sigma gives the mean.
    """
    assert sigma > 0
    place = torch.arange(size, device=device, dtype=torch.float32)
    weights = torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    return weights / weights.sum(dim=1, keepdim=True)


def blur_tokens(
    x: Float[Tensor, "*rows N D"], grid: Grid, sigma: float
) -> Float[Tensor, "*rows N D"]:
    """`x` blurred over the (F, H, W) grid of its N tokens, in float32, axis by axis.

    `sigma` above 0 is in tokens, the same along all axes; infinity gives the mean of all tokens
    in every place. Each token is a weighted mean, so constants stay.
    """
    volume = x.float().unflatten(-2, grid)
    with torch.autocast(x.device.type, enabled=False):
        for axis, size in zip((-4, -3, -2), grid):
            if size > 1:
                matrix = blur_matrix(size, sigma, x.device)
                volume = torch.tensordot(matrix, volume, dims=([1], [axis])).movedim(0, axis)
    return volume.flatten(-4, -2).to(x.dtype)


@contextlib.contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute set for the length of the block, and then as before: its own or its class's."""
    before = vars(owner).get(name, ...)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is ...:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextlib.contextmanager
def forward_replaced(layer: Layer, module: Any, change: Callable[..., Any]) -> Iterator[None]:
    """`change(forward, *args, **kwargs)` in the place of the forward of a layer or inside it.

    A compiled graph knows no change: a block compiled by itself runs as written, else the whole
    model does. The attention takes torch's own kernel, which can be reached.
    """
    processor, forward = getattr(module, "processor", None), module.forward

    @functools.wraps(forward)
    def changed(*args: Any, **kwargs: Any) -> Any:
        return change(forward, *args, **kwargs)

    with contextlib.ExitStack() as stack:
        if getattr(layer.block, "_compiled_call_impl", None) is not None:
            stack.enter_context(swapped(layer.block, "_compiled_call_impl", None))
        elif "torch._dynamo" in sys.modules:  # else nothing is compiled, and the import is long
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if hasattr(processor, "_attention_backend"):
            stack.enter_context(swapped(processor, "_attention_backend", "native"))
        stack.enter_context(swapped(module, "forward", changed))
        yield
