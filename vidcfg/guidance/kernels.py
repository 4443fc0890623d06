"""Two kernels for a step on a GPU, in Triton: one reads predictions, one writes the result.

`moments` reads every prediction once for the inner products that rules need; `weighted` reads
them again, writes the weighted sum and takes the spread of cond and of the result in the same
pass. Both do what `gram` and `apply` do with torch, which is their oracle: operations are rounded
to the dtype one by one (Triton must not fuse them), sums are taken in float64, in a fixed order:
of each program over some channels, then of a frame by the program that ends last.

Tensors are contiguous, (B, C, F, N) in the order of memory.
"""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidcfg.guidance.layout import MOST

_PROGRAMS = 1024
"""As many run at a time; more than these take several channels each, which sums up faster."""
_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
_COUNTERS: dict[tuple[int, int], Tensor] = {}
"""Of a device and stream: programs of each row that have ended, 0 again after every kernel."""


def moments(vectors: list[Tensor], num_others: int) -> Tensor:
    """What `loops.moments` adds up, without a shift: (B, F, these) in float64."""
    size = len(vectors)
    num_sums = size + size * (size + 1) // 2
    pointers = (vectors + [vectors[0]] * MOST)[: MOST + 1]
    grid, places, options = _divided(vectors[0], num_sums, block=1024 if size < 3 else 512)
    _moments[grid](*pointers, *places, size, num_others, **options)
    return places[0]


def weighted(
    out: Tensor, base: Tensor, cond: Tensor, parts: list[Tensor], num_moved: int, numbers: Tensor
) -> Tensor:
    """Fill `out` as `loops.weighted` does, of one to three parts.

    Returned are the sums and sums of squares of cond and of the result, (B, F, 4) in float64.
    """
    pointers = (parts + [base] * MOST)[:MOST]
    grid, places, options = _divided(out, 4, block=1024)
    per_row = len(out) // len(base)
    _weighted[grid](
        out, base, cond, *pointers, numbers, per_row, grid[0], *places, len(parts), num_moved,
        **options,
    )  # fmt: skip
    return places[0]


def _divided(blocks: Tensor, num_sums: int, *, block: int) -> tuple[tuple, tuple, dict]:
    """The grid of programs over `blocks`, where each finds its part, and how it is compiled.

    A row of the grid is a frame of a sample; a column some channels of it, and of their N
    elements a block.
    """
    count, channels, frames, length = blocks.shape
    pieces = triton.cdiv(length, block)
    each = 1
    while each < min(8, channels) and count * frames * channels * pieces >= 2 * each * _PROGRAMS:
        each *= 2
    columns = triton.cdiv(channels, each) * pieces
    found = blocks.new_empty((count, frames, num_sums), dtype=torch.float64)
    parts = blocks.new_empty((count * frames, num_sums, columns), dtype=torch.float64)
    places = (found, parts, _counters(blocks, count * frames), frames, channels, length, pieces)
    options = {
        "SUMS": num_sums,
        "EACH": each,
        "BLOCK": block,
        "COLUMNS": triton.next_power_of_2(columns),
        "enable_fp_fusion": False,
    }
    return (count * frames, columns), places, options


def _counters(beside: Tensor, num_rows: int) -> Tensor:
    """Zeros, which kernels leave as they were; those of a stream are used one after the other."""
    if beside.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return beside.new_zeros(num_rows, dtype=torch.int32)
    place = beside.device.index, torch.cuda.current_stream(beside.device).cuda_stream
    if place not in _COUNTERS or len(_COUNTERS[place]) < num_rows:
        _COUNTERS[place] = beside.new_zeros(max(num_rows, 1024), dtype=torch.int32)
    return _COUNTERS[place]


@triton.jit
def _near(value, like):
    """`value` rounded to the dtype of the pointer `like`, to go on with it.

    In Triton's interpreter to bfloat16 by its bits, which it would cut off.
    """
    if _INTERPRETED and like.dtype.element_ty == tl.bfloat16:
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
def _summed(values, found, parts, counters, SUMS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums of these vectors, as a part of the row's; a row's last program adds up its parts."""
    row, column, columns = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    parts += row.to(tl.int64) * SUMS * columns
    for k in tl.static_range(SUMS):
        tl.store(parts + k * columns + column, tl.sum(values[k], 0))
    tl.debug_barrier()
    if tl.atomic_add(counters + row, 1) == columns - 1:
        others = tl.arange(0, COLUMNS)
        for k in tl.static_range(SUMS):
            of_all = tl.load(
                parts + k * columns + others,
                mask=others < columns,
                other=0.0,
                cache_modifier=".cg",
            )
            tl.store(found + row * SUMS + k, tl.sum(of_all, 0))
        tl.store(counters + row, 0)


@triton.jit
def _moments(
    p0, p1, p2, p3, found, parts, counters, frames, channels, length, pieces,
    SIZE: tl.constexpr, OTHERS: tl.constexpr, SUMS: tl.constexpr, EACH: tl.constexpr,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0), tl.program_id(1)
    n = (column % pieces) * BLOCK + tl.arange(0, BLOCK)
    sample, frame = (row // frames).to(tl.int64), row % frames
    sums = (tl.zeros((BLOCK,), tl.float64),) * SUMS
    for i in tl.static_range(EACH):
        channel = (column // pieces) * EACH + i
        at = ((sample * channels + channel) * frames + frame) * length + n
        inside = (n < length) & (channel < channels)
        first = _read(p0, at, inside)
        vectors = (first.to(tl.float64),)
        for j in tl.static_range(1, SIZE):
            part = _read((p0, p1, p2, p3)[j], at, inside)
            if j <= OTHERS:
                part = _near(part - first, p0)
            vectors = vectors + (part.to(tl.float64),)
        more = vectors
        for j in tl.static_range(SIZE):
            for k in tl.static_range(j, SIZE):
                more = more + (vectors[j] * vectors[k],)
        added = (sums[0] + more[0],)
        for k in tl.static_range(1, SUMS):
            added = added + (sums[k] + more[k],)
        sums = added
    _summed(sums, found, parts, counters, SUMS, COLUMNS)


@triton.jit
def _weighted(
    out, base, cond, p0, p1, p2, numbers, per_row, num_rows,
    found, parts, counters, frames, channels, length, pieces,
    PARTS: tl.constexpr, MOVED: tl.constexpr, SUMS: tl.constexpr, EACH: tl.constexpr,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0), tl.program_id(1)
    n = (column % pieces) * BLOCK + tl.arange(0, BLOCK)
    sample, frame = (row // frames).to(tl.int64), row % frames
    numbers += row
    gain, factor = tl.load(numbers), tl.load(numbers + num_rows)
    is_off = tl.load(numbers + 2 * num_rows) != 0
    sums = (tl.zeros((BLOCK,), tl.float64),) * 4
    for i in tl.static_range(EACH):
        channel = (column // pieces) * EACH + i
        to = ((sample * channels + channel) * frames + frame) * length + n
        at = ((sample // per_row * channels + channel) * frames + frame) * length + n
        inside = (n < length) & (channel < channels)
        first, kept = _read(base, at, inside), _read(cond, at, inside)
        total = _near(first * gain, base)
        for j in tl.static_range(PARTS):
            part = _read((p0, p1, p2)[j], at, inside)
            if j < MOVED:
                part = _near(part - first, base)
            part = _near(part * tl.load(numbers + (3 + j) * num_rows), base)
            total = _near(total + part, base)
        total = tl.where(is_off, kept, _near(total * factor, base))
        tl.store(out + to, total.to(out.dtype.element_ty), mask=inside)
        old, new = kept.to(tl.float64), total.to(tl.float64)
        sums = (sums[0] + old, sums[1] + old * old, sums[2] + new, sums[3] + new * new)
    _summed(sums, found, parts, counters, SUMS, COLUMNS)
