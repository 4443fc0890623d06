"""Attention reached where every model computes it: in the call that takes queries, keys, values.

Processors differ from family to family; what they have in common is one call of torch's
`scaled_dot_product_attention` (or `vidcfg.mini.attention.attend`) on tensors [B, heads, N, D].
Video tokens are one slice of N, text tokens the rest.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from vidcfg.mini.attention import attend
from vidcfg.pipelines.changes.layers import Layer, forward_replaced
from vidcfg.pipelines.family import Blocks, Grid

_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
_MASKS = {scaled_dot_product_attention: "attn_mask", attend: "mask"}
"""The functions that are reached, and what they call their mask."""


@dataclass(frozen=True)
class AttentionCall:
    """One attention computation over video tokens and, in joint attention, text tokens.

    `mask` broadcasts over [B, heads, queries, keys] (True or 0 keeps a key); `video` is the slice
    of the tokens that belongs to the video; `run(query, part)` attends with
    these queries over all keys, where `part` says which tokens they are, for the mask.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    video: slice
    run: Callable[[Tensor, slice], Tensor]

    @property
    def text(self) -> slice | None:
        """The slice of the text tokens, None where there are none."""
        if self.video.start:
            return slice(0, self.video.start)
        return slice(self.video.stop, None) if self.video.stop < self.query.shape[-2] else None

    def joined(self, video: Tensor, text: Tensor | None) -> Tensor:
        """Outputs of the video and of the text tokens in the order of the tokens."""
        if text is None:
            return video
        return torch.cat([text, video] if self.video.start else [video, text], dim=-2)

    def by_head(self, shared: Tensor) -> Tensor:
        """Keys or values with one entry per head of the queries, where heads share them."""
        each = self.query.shape[1] // shared.shape[1]
        return shared if each == 1 else shared.repeat_interleave(each, dim=1)


Attend = Callable[[AttentionCall], Tensor]
"""What is computed in the place of an attention."""


class AttentionMode(TorchFunctionMode):
    """While active, attention over the video tokens goes through `change(call)`.

    `hits` counts the attention computations that were reached.

    Raises:
        ValueError: if the tokens of a call are not `num_video` video tokens, with text tokens
            only where `joint` says so.
    """

    def __init__(self, change: Attend, num_video: int, joint: str | None, layer: str):
        super().__init__()
        self.change, self.num_video, self.joint, self.layer = change, num_video, joint, layer
        self.hits = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None):
        kwargs = kwargs or {}
        if func not in _MASKS:
            return func(*args, **kwargs)
        self.hits += 1
        return self.change(self._call(func, dict(zip(_NAMES, args)) | kwargs))

    def _call(self, func: Callable, given: dict[str, Any]) -> AttentionCall:
        query, key, value = (given.pop(name) for name in _NAMES[:3])
        mask_name, total = _MASKS[func], query.shape[-2]
        mask, text = given.pop(mask_name, None), total - self.num_video
        if key.shape[-2] != total or text < 0 or (text and self.joint is None):
            raise ValueError(
                f"the attention of {self.layer} runs over {total} queries and {key.shape[-2]} "
                f"keys, where {self.num_video} video tokens are expected. Give other layers, or "
                f"guidance.method: cfg."
            )
        start = text if self.joint == "before" else 0

        def run(queries: Tensor, part: slice) -> Tensor:
            by_query = mask is not None and mask.ndim > 2 and mask.shape[-2] == total
            own = mask[..., part, :] if by_query else mask
            return func(queries, key, value, **given | {mask_name: own})

        video = slice(start, start + self.num_video)
        wide = mask[:, None, None, :] if mask is not None and mask.ndim == 2 else mask
        return AttentionCall(query, key, value, wide, video, run)


def attending(
    layer: Layer, blocks: Blocks, grid: Grid, change: Attend
) -> contextlib.AbstractContextManager:
    """The attention of one layer goes through `change` inside the block.

    Raises (when the layer runs):
        ValueError: if it computes its attention in a way that is not seen.
    """

    def changed(forward: Callable, *args: Any, **kwargs: Any) -> Any:
        # Named before: within a forward that is compiled, `with ... as mode` gives None.
        mode = AttentionMode(change, prod(grid), blocks.joint, layer.name)
        with mode:
            result = forward(*args, **kwargs)
        if not mode.hits:
            raise ValueError(
                f"{layer.name} computes its attention with a kernel that cannot be perturbed. "
                f"Use torch's own: pipe.transformer.set_attention_backend('native'), or "
                f"pipe.disable_xformers_memory_efficient_attention()."
            )
        return result

    return forward_replaced(layer, layer.block.get_submodule(blocks.attention), changed)
