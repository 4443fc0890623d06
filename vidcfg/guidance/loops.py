"""Loops over large predictions on a CPU that read and write memory once, compiled by numba.

Arrays are (B, C, F, N) in the order of memory: of float32, of float64, or of uint16, which are the
bits of bfloat16; there every operation is taken in float32 and rounded, as torch does it. Nothing
is reassociated or contracted but the sums of a block, which are added up in float64.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

Array = np.ndarray

_BLOCK = 2048
"""Elements at a time: what is made of them stays in the first cache."""
_PIECE = 8192
"""Elements of one sample filled at a time: with shorter pieces of many, memory is slower."""
_TOGETHER = 16
"""Pieces that are filled for one sample of several, then for the next: their differences stay in
the second cache."""
BINS = 4096
"""The exponents of float32, and the first four binary digits of each."""


@njit(cache=True, nogil=True)
def moments(vectors: tuple, num_others: int, shift: Array, sums: Array) -> None:
    """Add to `sums` (B, F, these) the sums of v_i - shift_i, then of their products for i <= j.

    v_0 is the first vector, and is taken off from the `num_others` that follow; `shift` (B, F, V).
    """
    size = len(vectors)
    count, channels, frames, length = vectors[0].shape
    parts = np.empty((size, _BLOCK), shift.dtype)
    for b, c, f in np.ndindex(count, channels, frames):
        for low in range(0, length, _BLOCK):
            width = min(_BLOCK, length - low)
            if size == 2:
                first = vectors[0][b, c, f, low : low + width]
                second = vectors[size - 1][b, c, f, low : low + width]
                for i, found in enumerate(_sums_of_pair(first, second, num_others, shift[b, f])):
                    sums[b, f, i] += found
                continue
            for i in range(size):
                rows = vectors[i][b, c, f, low : low + width]
                if 0 < i <= num_others:
                    _read_difference(rows, parts[0], parts[i])
                else:
                    _read(rows, parts[i])
            place = size
            for i in range(size):
                if shift[b, f, i] != 0:
                    parts[i, :width] -= shift[b, f, i]
            for i in range(size):
                sums[b, f, i] += _total(parts[i, :width])
                for j in range(i, size):
                    sums[b, f, place] += _product(parts[i, :width], parts[j, :width])
                    place += 1


@njit(cache=True, nogil=True)
def weighted(
    out: Array, base: Array, cond: Array, parts: tuple, num_moved: int, numbers: Array, sums: Array
) -> None:
    """Fill `out` with factor * (gain * base + sum_i amount_i part_i), or `cond` where `off`.

    From the first `num_moved` parts the base is taken off. `numbers` are gain, factor, off (0 or
    1) and the amounts, (3 + P, B, F). Predictions of one row serve all samples. Unless it has no
    row, `sums` (B, F, 4) gets the sums and sums of squares of cond and of the result.
    """
    gain, factor, off, amounts = numbers[0], numbers[1], numbers[2], numbers[3:]
    count, channels, frames, length = base.shape
    per_row, pieces = len(out) // count, -(-length // _PIECE)
    num_pieces, together = frames * pieces, _TOGETHER if len(out) > count else 1
    moved = np.empty((together, len(parts), _PIECE), out.dtype)
    for b, c, group in np.ndindex(count, channels, -(-num_pieces // together)):
        first, end = group * together, min((group + 1) * together, num_pieces)
        for n in range(first, end):
            f, low = n // pieces, n % pieces * _PIECE
            high = min(length, low + _PIECE)
            # One difference for one sample is not kept.
            if num_moved == len(parts) == per_row == 1 and off[b, f] == 0:
                continue
            for i in range(len(parts)):
                rows, kept = parts[i][b, c, f, low:high], moved[n - first, i]
                if i < num_moved:
                    _read_difference(rows, base[b, c, f, low:high], kept)
                else:
                    kept[: high - low] = rows
        for k in range(b * per_row, (b + 1) * per_row):
            for n in range(first, end):
                f, low = n // pieces, n % pieces * _PIECE
                high = min(length, low + _PIECE)
                source, target = base[b, c, f, low:high], out[k, c, f, low:high]
                if off[k, f] != 0:
                    target[:] = cond[b, c, f, low:high]
                elif num_moved == len(parts) == per_row == 1:
                    rows = parts[0][b, c, f, low:high]
                    _guide(source, rows, gain[k, f], amounts[0, k, f], factor[k, f], target)
                else:
                    _begin(source, moved[n - first, 0], amounts[0, k, f], gain[k, f], target)
                    for i in range(1, len(parts)):
                        _add(moved[n - first, i], amounts[i, k, f], target)
                    if factor[k, f] != 1:
                        _multiply(target, factor[k, f])
                if len(sums):
                    for i, row in enumerate((cond[b, c, f, low:high], target)):
                        found = _total_and_square(row)
                        sums[k, f, 2 * i] += found[0]
                        sums[k, f, 2 * i + 1] += found[1]


@njit(cache=True, nogil=True)
def count_sizes(noisy: Array, guided: Array, level: tuple, row: Array, counts: Array) -> None:
    """Add to `counts` (R, BINS) how many |a noisy + b guided|, level = (a, b), are in each bin.

    `row` (B, F) says which row of counts is a frame's.
    """
    count, channels, frames, length = guided.shape
    for b, c, f in np.ndindex(count, channels, frames):
        into, x, p = counts[row[b, f]], noisy[b, c, f], guided[b, c, f]
        for j in range(length):
            into[_bin(_clean(x[j], p[j], level))] += 1


@njit(cache=True, nogil=True)
def sizes_of_bin(
    noisy: Array,
    guided: Array,
    level: tuple,
    row: Array,
    picked: Array,
    found: Array,
    above: Array,
) -> None:
    """Put the sizes of one bin per row into `found`, and the least one of later bins into `above`.

    `picked` (R, 2) is the bin, and where in `found` the next of its values goes.
    """
    count, channels, frames, length = guided.shape
    for b, c, f in np.ndindex(count, channels, frames):
        r = row[b, f]
        wanted, place = picked[r]
        x, p = noisy[b, c, f], guided[b, c, f]
        for j in range(length):
            size = abs(_clean(x[j], p[j], level))
            at = _bin(size)
            if at == wanted:
                found[place] = size
                place += 1
            elif at > wanted and size < above[r]:
                above[r] = size
        picked[r, 1] = place


@njit(cache=True, nogil=True)
def limit_sizes(
    noisy: Array, guided: Array, levels: tuple, bounds: Array, shrink: Array, off: Array
) -> None:
    """In `guided`, x0 = a noisy + b guided within `bounds` (B, F), times `shrink` (B, F).

    levels = (a, b, back_a, back_b); what x0 keeps its bits there keeps them too, and so do frames
    that are `off`.
    """
    a, b_, back_a, back_b = levels
    count, channels, frames, length = guided.shape
    for b, c, f in np.ndindex(count, channels, frames):
        if off[b, f]:
            continue
        bound, times = bounds[b, f], shrink[b, f]
        x, p = noisy[b, c, f], guided[b, c, f]
        for j in range(length):
            x0 = _clean(x[j], p[j], (a, b_))
            tamed = min(max(x0, -bound), bound) * times
            if tamed != x0:
                changed = tamed * back_b + _wide(x[j]) * back_a
                p[j] = _bits(_near(changed, p), p)


# ---- One row of a block ----


@njit(cache=True)
def _read(rows: Array, into: Array) -> None:
    for j in range(len(rows)):
        into[j] = _wide(rows[j])


@njit(cache=True)
def _read_difference(rows: Array, first: Array, into: Array) -> None:
    for j in range(len(rows)):
        into[j] = _bits(_near(_wide(rows[j]) - _wide(first[j]), rows), into)


@njit(cache=True)
def _guide(source: Array, rows: Array, gain: Any, amount: Any, factor: Any, target: Array) -> None:
    """target = factor (gain source + amount (rows - source)); 1 and 1 take no time."""
    is_plain = gain == 1 and factor == 1
    for j in range(len(target)):
        first = _wide(source[j])
        moved = _near(_near(_wide(rows[j]) - first, target) * amount, target)
        if is_plain:
            total = _near(first + moved, target)
        else:
            total = _near(_near(_near(first * gain, target) + moved, target) * factor, target)
        target[j] = _bits(total, target)


@njit(cache=True)
def _begin(first: Array, part: Array, amount: Any, gain: Any, target: Array) -> None:
    """target = gain first + amount part; a gain of 1 takes no time."""
    for j in range(len(target)):
        base = _wide(first[j]) if gain == 1 else _near(_wide(first[j]) * gain, target)
        target[j] = _bits(_near(base + _near(_wide(part[j]) * amount, target), target), target)


@njit(cache=True)
def _add(part: Array, amount: Any, target: Array) -> None:
    for j in range(len(target)):
        total = _wide(target[j]) + _near(_wide(part[j]) * amount, target)
        target[j] = _bits(_near(total, target), target)


@njit(cache=True)
def _multiply(target: Array, factor: Any) -> None:
    for j in range(len(target)):
        target[j] = _bits(_near(_wide(target[j]) * factor, target), target)


@njit(cache=True, fastmath={"reassoc"})
def _total(row: Array) -> Any:
    found = row.dtype.type(0)
    for j in range(len(row)):
        found += row[j]
    return found


@njit(cache=True, fastmath={"reassoc"})
def _total_and_square(row: Array) -> tuple:
    zero = _wide(row.dtype.type(0))
    total, square = zero, zero
    for j in range(len(row)):
        value = _wide(row[j])
        total += value
        square += value * value
    return total, square


@njit(cache=True, fastmath={"reassoc"})
def _sums_of_pair(row: Array, other: Array, num_others: int, shift: Array) -> tuple:
    """What `moments` adds up for two vectors, each read once."""
    zero = shift.dtype.type(0)
    first, second, square, product, other_square = zero, zero, zero, zero, zero
    for j in range(len(row)):
        x, y = _wide(row[j]), _wide(other[j])
        y = _near(y - x, row) if num_others else y
        x, y = x - shift[0], y - shift[1]
        first += x
        second += y
        square += x * x
        product += x * y
        other_square += y * y
    return first, second, square, product, other_square


@njit(cache=True, fastmath={"reassoc"})
def _product(row: Array, other: Array) -> Any:
    found = row.dtype.type(0)
    for j in range(len(row)):
        found += row[j] * other[j]
    return found


# ---- One number: as it is, or the bits of a bfloat16 ----


def _wide(value):
    """A number to reckon with."""


def _near(value, like):
    """`value` rounded to what the array `like` can hold."""


def _bits(value, like):
    """A rounded value as it stands in `like`."""


@overload(_wide)
def _(value):
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@overload(_near)
def _(value, like):
    if like.dtype != types.uint16:
        return lambda value, like: value

    def nearest_even(value, like):
        bits = np.float32(value).view(np.uint32)
        odd = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
        up = np.uint32(bits + np.uint32(0x7FFF) + odd)
        return np.uint32(up & np.uint32(0xFFFF0000)).view(np.float32)

    return nearest_even


@overload(_bits)
def _(value, like):
    if like.dtype != types.uint16:
        return lambda value, like: value
    return lambda value, like: np.uint16(np.float32(value).view(np.uint32) >> np.uint32(16))


@njit(cache=True)
def _clean(noisy: Any, guided: Any, level: tuple) -> Any:
    return _wide(noisy) * level[0] + _wide(guided) * level[1]


@njit(cache=True)
def _bin(value: Any) -> Any:
    return np.int64((np.float32(value).view(np.uint32) & np.uint32(0x7FFFFFFF)) >> np.uint32(19))
