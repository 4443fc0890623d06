"""A model perturbed for the length of one call, and then exactly as before."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.pipelines.changes.attention import AttentionMode, identity, with_queries
from vidcfg.pipelines.changes.blur import blur_tokens
from vidcfg.pipelines.changes.grid import token_grid
from vidcfg.pipelines.changes.layers import Layer, find_layers
from vidcfg.pipelines.family import Family


@contextlib.contextmanager
def perturbed(
    module: Any, family: Family, perturbation: Perturbation, arguments: Mapping[str, Any]
) -> Iterator[tuple[Layer, ...]]:
    """Perturb a denoiser while the block runs; yields the layers that are changed.

    `arguments` are those of the denoiser call, for the token grid. Every change is taken back on
    leaving, also after an exception, in the reverse order.

    Raises:
        ValueError: if the family declares no blocks, a layer does not exist, or an attention
            cannot be reached.
    """
    blocks = family.blocks
    if blocks is None:
        raise ValueError(
            f"{perturbation.rule} perturbs transformer blocks, and the family '{family.name}' "
            f"does not say where they are. Set Family(blocks=...), or use guidance.method: cfg."
        )
    layers = find_layers(module, blocks, perturbation)
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(run_eagerly(layer.block))
            if perturbation.kind == "skip":
                stack.enter_context(replaced(layer.block, _skipping(layer.block, blocks.returns)))
                continue
            grid = token_grid(family, module, arguments, layer.index)
            attention = layer.block.get_submodule(blocks.attention)
            stack.enter_context(native_attention(attention))
            wrap = _changing(perturbation, grid, blocks.joint, layer, attention)
            stack.enter_context(replaced(attention, wrap))
        yield tuple(layers)


@contextlib.contextmanager
def replaced(module: Any, wrap: Callable[[Callable], Callable]) -> Iterator[None]:
    """`module.forward` replaced by `wrap(module.forward)`, and put back as it was."""
    before, had_own = module.forward, "forward" in vars(module)
    module.forward = functools.wraps(before)(wrap(before))
    try:
        yield
    finally:
        if had_own:
            module.forward = before
        else:
            del module.forward


@contextlib.contextmanager
def run_eagerly(block: Any) -> Iterator[None]:
    """A block compiled by itself runs as written, because its graph knows no perturbation."""
    compiled = getattr(block, "_compiled_call_impl", None)
    if compiled is None:
        yield
        return
    block._compiled_call_impl = None
    try:
        yield
    finally:
        block._compiled_call_impl = compiled


@contextlib.contextmanager
def native_attention(attention: Any) -> Iterator[None]:
    """diffusers' choice of an attention kernel set to torch's own, which can be reached."""
    processor = getattr(attention, "processor", None)
    if not hasattr(processor, "_attention_backend"):
        yield
        return
    own = vars(processor).get("_attention_backend", ...)
    processor._attention_backend = "native"
    try:
        yield
    finally:
        if own is ...:
            del processor._attention_backend
        else:
            processor._attention_backend = own


def reach(mode: AttentionMode, forward: Callable, args: tuple, kwargs: dict) -> Any:
    """`forward(...)` under `mode`.

    Raises:
        ValueError: if it computes its attention in a way that the mode does not see.
    """
    with mode:
        result = forward(*args, **kwargs)
    if not mode.hits:
        raise ValueError(
            f"{mode.layer} computes its attention with a kernel that cannot be perturbed. Use "
            f"torch's own: pipe.transformer.set_attention_backend('native'), or "
            f"pipe.disable_xformers_memory_efficient_attention()."
        )
    return result


def _changing(
    perturbation: Perturbation,
    grid: tuple[int, int, int],
    joint: str | None,
    layer: Layer,
    attention: Any,
) -> Callable[[Callable], Callable]:
    num_video = prod(grid)
    if perturbation.kind == "drop":
        return lambda forward: lambda *a, **k: _without_video(forward(*a, **k), num_video, joint)
    change = identity
    if perturbation.kind == "blur":
        change = with_queries(lambda q: blur_tokens(q, grid, perturbation.sigma))

    def wrap(forward: Callable) -> Callable:
        def changed(*args, **kwargs):
            mode = AttentionMode(change, num_video=num_video, joint=joint, layer=layer.name)
            return reach(mode, forward, args, kwargs)

        return changed

    return wrap


def _without_video(output: Any, num_video: int, joint: str | None) -> Any:
    """An attention's output with zeros for the video tokens.

    A pair is (video, text), as all attention modules of diffusers return it.
    """
    video = output[0] if isinstance(output, tuple) else output
    text = video.shape[-2] - num_video
    assert text >= 0, "all video tokens pass through one attention"
    assert joint is not None or text == 0, "video tokens and no others"
    if isinstance(output, tuple):
        assert text == 0, "a pair holds the text tokens by themselves"
        return torch.zeros_like(video), *output[1:]
    start = text if joint == "before" else 0
    kept = video.clone()
    kept[..., start : start + num_video, :] = 0
    return kept


def _skipping(block: Any, returns: tuple[str, ...]) -> Callable[[Callable], Callable]:
    signature = inspect.signature(type(block).forward)

    def wrap(forward: Callable) -> Callable:
        def skipped(*args, **kwargs) -> Tensor | tuple[Tensor, ...]:
            given = signature.bind(block, *args, **kwargs).arguments
            given = dict(given) | given.get("kwargs", {})
            kept = tuple(given[name] for name in returns)
            return kept[0] if len(kept) == 1 else kept

        return skipped

    return wrap
