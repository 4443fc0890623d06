"""How much each video token is attended to, read off a pass that runs as it always does."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidcfg.guidance.perturbation import Degradation, Perturbation
from vidcfg.pipelines.changes.attention import AttentionCall, AttentionMode
from vidcfg.pipelines.changes.grid import token_grid
from vidcfg.pipelines.changes.hooks import native_attention, reach, replaced, run_eagerly
from vidcfg.pipelines.changes.layers import find_layers
from vidcfg.pipelines.family import Family

_CHUNK = 1024


@dataclass
class Saliency:
    """Attention received by the video tokens of one layer: rows [B, N], mean 1, of a grid."""

    grid: tuple[int, int, int] = (1, 1, 1)
    rows: list[Tensor] = field(default_factory=list)

    def volume(self) -> Float[Tensor, "B F H W"]:
        """The received attention in its grid."""
        return torch.cat(self.rows).unflatten(-1, self.grid)


@contextlib.contextmanager
def watched(
    module: Any, family: Family, degradation: Degradation, arguments: Mapping[str, Any]
) -> Iterator[Saliency]:
    """Collect the saliency of one layer while the block runs; the model computes as before.

    Raises:
        ValueError: if the family declares no blocks that see whole frames, the layer does not
            exist or is not a single one, or its attention cannot be reached.
    """
    if family.blocks is None or family.hidden == "sample":
        raise ValueError(
            f"{degradation.rule} reads the attention of a video transformer, which the family "
            f"'{family.name}' does not have. Use guidance.method: pag."
        )
    layer, *further = find_layers(
        module, family.blocks, Perturbation("identity", degradation.layers, "sag")
    )
    if further:
        raise ValueError(f"{degradation.rule} reads one layer. Give one: layers: [{layer.index}].")
    grid = token_grid(family, module, arguments, layer.index)
    seen = Saliency(grid)
    attention = layer.block.get_submodule(family.blocks.attention)

    def watch(call: AttentionCall) -> Tensor:
        seen.rows.append(received(call))
        return call.run(call.query, slice(None))

    def wrap(forward):
        def watching(*args, **kwargs):
            mode = AttentionMode(
                watch, num_video=prod(grid), joint=family.blocks.joint, layer=layer.name
            )
            return reach(mode, forward, args, kwargs)

        return watching

    eager, native = run_eagerly(layer.block), native_attention(attention)
    with eager, native, replaced(attention, wrap):
        yield seen


def received(call: AttentionCall) -> Float[Tensor, "B N"]:
    """The attention that each video token gets from all video tokens, mean over heads.

    Every query gives 1 away, part of it to text tokens in joint attention; the result is divided
    by its mean over the tokens. Computed in float32 over chunks of queries, so that no map of all
    pairs is held.
    """
    keys = call.key.float()
    if keys.shape[1] != call.query.shape[1]:  # grouped heads
        keys = keys.repeat_interleave(call.query.shape[1] // keys.shape[1], dim=1)
    with torch.autocast(keys.device.type, enabled=False):
        total = _received(call, keys)
    mass = total.mean(dim=1)
    return mass / mass.mean(dim=-1, keepdim=True)


def _received(call: AttentionCall, keys: Tensor) -> Float[Tensor, "B heads N"]:
    """What each video token gets in each head, summed over the video's queries."""
    total = 0.0
    for start in range(call.video.start, call.video.stop, _CHUNK):
        rows = slice(start, min(start + _CHUNK, call.video.stop))
        scores = call.query[..., rows, :].float() @ keys.transpose(-1, -2)
        scores = _masked(scores * keys.shape[-1] ** -0.5, call.mask, rows)
        total = total + scores.softmax(dim=-1)[..., call.video].sum(dim=-2)
    return total


def _masked(scores: Tensor, mask: Tensor | None, rows: slice) -> Tensor:
    if mask is None:
        return scores
    mask = mask[..., rows, :] if mask.shape[-2] > 1 else mask
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, float("-inf"))
    return scores + mask
