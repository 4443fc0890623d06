"""Large predictions, given as they lie in memory to compiled loops, or to kernels on a GPU."""

import os
import sys
import threading
from collections import deque
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.layout import SMALL

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
_ROOM = threading.local()
_ORDERS = (
    lambda frames: frames.unsqueeze(1),
    lambda frames: frames.transpose(1, 2),
    lambda frames: frames.movedim(2, -1).unsqueeze(1),
)
"""From (B, F, C, ...) to how it may lie in memory: frames first, channels first, channels last."""


def planes(*tensors: Tensor) -> list[Any] | None:
    """Blocks (B, C, F, N) on the memory of (B, F, ...) tensors, for loops or kernels.

    On a CPU arrays, bfloat16 as uint16; on a GPU, where kernels are asked for, tensors. None where
    neither serves, and torch does the same: for small tensors, for those that are no block of
    memory in the same order, for other dtypes, and without numba or Triton.
    """
    first = tensors[0]
    if first.ndim < 3 or first[0].numel() <= SMALL:
        return None
    is_host = first.device.type == "cpu"
    if any(t.device != first.device or t.dtype not in _DTYPES for t in tensors):
        return None
    if (loops() if is_host else kernels() if first.device.type == "cuda" else None) is None:
        return None
    for order in _ORDERS:
        if order(first).ndim > 3 and all(order(t).is_contiguous() for t in tensors):
            blocks = [order(t.detach()).flatten(3) for t in tensors]
            return [_array(block) for block in blocks] if is_host else blocks
    return None


def room(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`like.new_empty`; for what is large on a CPU, memory of a step before that nobody holds.

    The first touch of a large tensor takes a CPU longer than to fill it, of the huge pages that
    numpy asks for a sixth. Tensors on an array count as holders of it, and so do their views.
    """
    size = prod(shape) * dtype.itemsize
    if like.device.type != "cpu" or size <= 32 * SMALL:
        return like.new_empty(shape, dtype=dtype)
    held = vars(_ROOM).setdefault("held", deque(maxlen=2))
    for block, count in zip(held, _reference_counts(held)):
        if block.nbytes == size and count == _ALONE:
            break
    else:
        block = np.empty(size, np.uint8)
        held.append(block)
    return torch.from_numpy(block).view(dtype).view(shape)


def _reference_counts(blocks: deque) -> list[int]:
    return [sys.getrefcount(block) for block in blocks]


_ALONE = _reference_counts(deque([np.empty(0)]))[0]
"""The count of a block that only a queue holds: versions of Python differ in it."""


@lru_cache
def loops() -> Any:
    """The compiled loops, or None: without numba, or where it has no folder to keep them in."""
    try:
        from vidcfg.guidance import loops as compiled
    except (ImportError, RuntimeError):
        return None
    return compiled


def _array(view: Tensor) -> np.ndarray:
    return (view.view(torch.uint16) if view.dtype == torch.bfloat16 else view).numpy()


def kernels() -> Any:
    """The kernels for a GPU, where VIDCFG_KERNELS=triton asks for them.

    They take a GPU less time than torch does, but as long on the clock, and have to be compiled.
    """
    if os.environ.get("VIDCFG_KERNELS") != "triton":
        return None
    from vidcfg.guidance import kernels as compiled

    return compiled


def moments(vectors: list[Any], num_others: int, shift_BFV: Tensor | None = None) -> Tensor:
    """The sums of `gram.gram_of`: of every v_i, then of v_i v_j for i <= j, (B, F, these)."""
    if isinstance(vectors[0], Tensor):
        return kernels().moments(vectors, num_others)
    count, _, num_frames, _ = vectors[0].shape
    size = len(vectors)
    shift = np.zeros((count, num_frames, size)) if shift_BFV is None else shift_BFV.numpy()
    sums = np.zeros((count, num_frames, size + size * (size + 1) // 2))
    loops().moments(tuple(vectors), num_others, shift.astype(_wide(vectors[0])), sums)
    return torch.from_numpy(sums)


def weighted(
    blocks: list[Any], num_moved: int, numbers: list[Any], is_measured: bool
) -> Tensor | None:
    """Fill the first of `blocks`, out, base, cond and parts, as `apply.combine` says it.

    `numbers` are gain, factor, off and the amounts of the parts, (B, F) each, or None for nothing
    to do. Where measured, the sums that `gram.spread` reads are returned, (B, F, 4).
    """
    out, base, cond, *parts = blocks
    shape = (len(out), out.shape[2])
    numbers = [(i != 2) if n is None else n for i, n in enumerate(numbers)]
    if isinstance(out, Tensor):
        wide = torch.promote_types(out.dtype, torch.float32)
        held = _on_device(numbers, shape, wide, out.device)
        sums = kernels().weighted(out, base, cond, parts, num_moved, held)
        return sums if is_measured else None
    held = np.empty((len(numbers), *shape), _wide(out))
    for i, number in enumerate(numbers):
        held[i] = number.numpy() if isinstance(number, Tensor) else number
    sums = np.zeros((len(out) if is_measured else 0, out.shape[2], 4))
    loops().weighted(out, base, cond, tuple(parts), num_moved, held, sums)
    return torch.from_numpy(sums) if is_measured else None


def _on_device(
    numbers: list[Any], shape: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """All numbers beside the predictions, in one copy where the host knows them all."""
    if not any(isinstance(n, Tensor) for n in numbers):
        known = np.stack([np.broadcast_to(n, shape) for n in numbers]).astype(np.float64)
        return torch.from_numpy(known).to(device, dtype, non_blocking=True)
    there = (torch.as_tensor(n).to(device, dtype, non_blocking=True) for n in numbers)
    return torch.stack([n.expand(shape) for n in there])


def limit_x0(
    noisy: np.ndarray,
    guided: np.ndarray,
    levels: tuple[float, float, float, float],
    threshold: Any,
    *,
    statistics: str,
    off_BF: np.ndarray,
) -> None:
    """`limits.Threshold` on x0 = a noisy + b guided, in `guided` itself; off frames stay.

    `levels` are a, b, and the numbers for the way back from x0.
    """
    kit, dtype = loops(), np.dtype(np.float32)
    count, _, num_frames, _ = guided.shape
    num_rows = count if statistics == "clip" else count * num_frames
    row_BF = np.arange(num_rows).reshape(count, -1).repeat(num_frames * count // num_rows, axis=1)
    to_x0 = tuple(dtype.type(v) for v in levels[:2])

    # The percentile lies between two neighbours: they are in one bin, or the second is the least
    # beyond it.
    counts = np.zeros((num_rows, kit.BINS), np.int64)
    kit.count_sizes(noisy, guided, to_x0, row_BF, counts)
    position = threshold.percentile / 100 * (guided.size // num_rows - 1)
    ends = counts.cumsum(1)
    bins = (ends <= int(position)).sum(1)
    sizes = np.take_along_axis(counts, bins[:, None], 1)[:, 0]
    places = sizes.cumsum() - sizes
    found, above = np.empty(sizes.sum(), dtype), np.full(num_rows, np.inf, dtype)
    kit.sizes_of_bin(noisy, guided, to_x0, row_BF, np.stack([bins, places], 1), found, above)
    q = np.empty(num_rows, dtype)
    for r, (place, size) in enumerate(zip(places, sizes)):
        rank = int(position) - (ends[r, bins[r]] - size)
        held = np.sort(np.append(found[place : place + size], above[r]))
        low, high = torch.from_numpy(held[rank : rank + 2])
        q[r] = low.lerp(high, position - int(position)) if position > int(position) else low

    # Within the bounds, and as a prediction.
    bound_BF = np.maximum(q, dtype.type(threshold.floor))[row_BF]
    shrink_BF = dtype.type(threshold.floor) / bound_BF
    numbers = tuple(dtype.type(v) for v in levels)
    off_BF = np.ascontiguousarray(np.broadcast_to(off_BF, row_BF.shape))
    kit.limit_sizes(noisy, guided, numbers, bound_BF, shrink_BF, off_BF)


def _wide(array: np.ndarray) -> np.dtype:
    """What the loops reckon in."""
    return np.dtype(np.float64 if array.dtype == np.float64 else np.float32)
