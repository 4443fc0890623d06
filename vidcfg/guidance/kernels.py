"""Two kernels for a step on a GPU, in Triton: one reads predictions, one writes the result.

`moments` reads every prediction once for the inner products that rules need; `weighted` reads
them again, writes the weighted sum and takes the spread of cond and of the result in the same
pass. Both do what `gram` and `apply` do with torch, which is their oracle: operations are rounded
to the dtype one by one (Triton must not fuse them), sums are taken in float64, in a fixed order.

Tensors are contiguous, (B, C, F, N) in the order of memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidcfg.guidance.layout import MOST

_BLOCK = 2048


def moments(vectors: list[Tensor], num_others: int) -> Tensor:
    """Sums of v_i, then of v_i v_j for i <= j, (B, F, these) in float64: see `gram.gram_of`.

    v_0 is the first vector, and is taken off from the `num_others` that follow.
    """
    size = len(vectors)
    count, channels, frames, length = vectors[0].shape
    pieces = triton.cdiv(length, _BLOCK)
    num_sums = size + size * (size + 1) // 2
    sums = vectors[0].new_empty((count, frames, channels * pieces, num_sums), dtype=torch.float64)
    grid = (count * frames, channels * pieces)
    pointers = (vectors + [vectors[0]] * MOST)[: MOST + 1]
    _moments[grid](
        *pointers, sums, frames, channels, length, pieces, size, num_others, num_sums, _BLOCK,
        enable_fp_fusion=False,
    )  # fmt: skip
    return sums.sum(2)


def weighted(
    out: Tensor, base: Tensor, cond: Tensor, parts: list[Tensor], num_moved: int, numbers: Tensor
) -> Tensor:
    """Fill `out` with factor * (gain * base + sum_i amount_i part_i), or `cond` where off.

    From the first `num_moved` of one to three parts the base is taken off. `numbers` are gain,
    factor, off (0 or 1) and the amounts, (3 + P, B, F). Inputs of one row serve all samples.
    Returned are the sums and sums of squares of cond and of the result, (B, F, 4) in float64.
    """
    count, channels, frames, length = out.shape
    pieces = triton.cdiv(length, _BLOCK)
    sums = out.new_empty((count, frames, channels * pieces, 4), dtype=torch.float64)
    grid = (count * frames, channels * pieces)
    pointers = (parts + [base] * MOST)[:MOST]
    _weighted[grid](
        out, base, cond, *pointers, numbers, sums, count // len(base), count * frames, frames,
        channels, length, pieces, len(parts), num_moved, _BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return sums.sum(2)


@triton.jit
def _place(row, column, frames, channels, length, pieces, BLOCK: tl.constexpr):
    """Where a block of one frame lies, and which of its elements there are."""
    channel = column // pieces
    n = (column % pieces) * BLOCK + tl.arange(0, BLOCK)
    line = ((row // frames).to(tl.int64) * channels + channel) * frames + row % frames
    return line * length + n, n < length


@triton.jit
def _near(value, like):
    """`value` rounded to the dtype of the pointer `like`, to go on with it.

    To bfloat16 by its bits: the interpreter of Triton would cut them off.
    """
    if like.dtype.element_ty == tl.bfloat16:
        bits = value.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        value = tl.where(value == value, bits.to(tl.float32, bitcast=True), value)
    else:
        value = value.to(like.dtype.element_ty).to(value.dtype)
    return value


@triton.jit
def _read(pointer, at, inside):
    """Numbers in float32, or float64 where they are."""
    values = tl.load(pointer + at, mask=inside, other=0.0)
    if pointer.dtype.element_ty != tl.float64:
        values = values.to(tl.float32)
    return values


@triton.jit
def _add_to(sums, place, values):
    tl.store(sums + place, tl.sum(values.to(tl.float64), 0))


@triton.jit
def _moments(
    p0, p1, p2, p3, sums, frames, channels, length, pieces,
    SIZE: tl.constexpr, OTHERS: tl.constexpr, SUMS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0), tl.program_id(1)
    at, inside = _place(row, column, frames, channels, length, pieces, BLOCK)
    first = _read(p0, at, inside)
    found = (first,)
    for i in tl.static_range(1, SIZE):
        pointer = (p0, p1, p2, p3)[i]
        part = _read(pointer, at, inside)
        if i <= OTHERS:
            part = _near(part - first, p0)
        found = found + (part,)
    into = sums + (row.to(tl.int64) * tl.num_programs(1) + column) * SUMS
    for i in tl.static_range(SIZE):
        _add_to(into, i, found[i])
        for j in tl.static_range(i, SIZE):
            both = found[i].to(tl.float64) * found[j].to(tl.float64)
            _add_to(into, SIZE + i * SIZE - i * (i - 1) // 2 + j - i, both)


@triton.jit
def _weighted(
    out, base, cond, p0, p1, p2, numbers, sums,
    per_row, num_rows, frames, channels, length, pieces,
    PARTS: tl.constexpr, MOVED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0), tl.program_id(1)
    to, inside = _place(row, column, frames, channels, length, pieces, BLOCK)
    source = (row // frames) // per_row * frames + row % frames
    at, _ = _place(source, column, frames, channels, length, pieces, BLOCK)
    first, kept = _read(base, at, inside), _read(cond, at, inside)
    numbers += row
    total = _near(first * tl.load(numbers), base)
    for i in tl.static_range(PARTS):
        pointer = (p0, p1, p2)[i]
        part = _read(pointer, at, inside)
        if i < MOVED:
            part = _near(part - first, base)
        part = _near(part * tl.load(numbers + (3 + i) * num_rows), base)
        total = _near(total + part, base)
    total = _near(total * tl.load(numbers + num_rows), base)
    total = tl.where(tl.load(numbers + 2 * num_rows) != 0, kept, total)
    tl.store(out + to, total.to(out.dtype.element_ty), mask=inside)
    into = sums + (row.to(tl.int64) * tl.num_programs(1) + column) * 4
    _add_to(into, 0, kept)
    _add_to(into, 1, kept.to(tl.float64) * kept.to(tl.float64))
    _add_to(into, 2, total)
    _add_to(into, 3, total.to(tl.float64) * total.to(tl.float64))
