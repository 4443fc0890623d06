"""The weighted sum of predictions, and in the same pass the spread of its frames."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import HOST, joined, pieces_of, rows_of, sums_of
from vidcfg.guidance.layout import MOST
from vidcfg.guidance.planes import planes, weighted
from vidcfg.guidance.shapes import Bool, Float


def combine(
    predictions: Mapping[str, Float[Tensor, "b F ..."]],
    combination: Combination,
    *,
    vectors: Mapping[str, Float[Tensor, "b F ..."]] | None = None,
    out: Float[Tensor, "B F ..."] | None = None,
    off_BF: Bool[Any, "B F"] | None = None,
    measured: list[Tensor] | None = None,
) -> Float[Tensor, "B F ..."]:
    """The guided prediction, in `out` or a new tensor.

    Each operation is rounded to the dtype of the predictions as the stock pipelines do: for
    bfloat16 the products are taken in float32 and rounded, which is what a Python scalar times a
    tensor does. A frame marked off (in `off_BF`, else in the combination) is a copy of `cond`.
    `vectors` are those that `extra_BF` names. Predictions of one row serve all B samples. Where
    `measured` is given, and every sample has predictions of its own, the sums that `spread` reads,
    of cond and of the result, are appended to it, on a GPU by the kernels alone.
    """
    base = predictions[combination.base]
    if out is None:
        out = base.new_empty((len(combination.off_BF), *base.shape[1:]))
    given = [predictions[branch] for branch in combination.delta_BF]
    given += [vectors[name] for name in combination.extra_BF]
    moved = len(combination.delta_BF)

    # The numbers of every frame; None where there is nothing to do.
    off_BF = combination.off_BF if off_BF is None else off_BF
    has_off = isinstance(off_BF, Tensor) or off_BF.any()
    numbers = [combination.gain_BF, combination.factor_BF, off_BF if has_off else None]
    numbers += [*combination.delta_BF.values(), *combination.extra_BF.values()]

    # In one pass where compiled loops or kernels serve.
    inputs = [out, base, predictions.get("cond", base), *given]
    is_plain = 0 < len(given) <= MOST and len({t.dtype for t in inputs}) == 1
    arrays = planes(*inputs) if is_plain else None
    if arrays is not None:
        sums = weighted(arrays, moved, numbers, measured is not None)
        if measured is not None:
            measured.append(sums)
        return out
    if out.device.type not in HOST:
        measured = None
    out.view(*out.shape[:3], -1)  # Raises where its rows would be a copy, filled in its place.
    target, *inputs = rows_of(*inputs)
    numbers = [None if n is None else _beside(n, target) for n in numbers]

    # Piece by piece; the samples that share their predictions one after the other.
    count = len(base) if len(base) == len(out) else 1
    kit, sums = np if isinstance(target, np.ndarray) else torch, []
    for samples, frames in pieces_of(inputs[0]):
        first, cond, *parts = (row[samples, frames] for row in inputs)
        into = target[samples, frames] if count == len(out) else None
        parts[:moved] = [
            kit.subtract(p, first, out=None if i else into) for i, p in enumerate(parts[:moved])
        ]
        for i in range(0, len(out), count):
            place = slice(i + samples.start, i + samples.stop), frames
            amounts = [None if n is None else n[place] for n in numbers]
            _add_up(target[place], first, cond, parts, *amounts)
            if measured is not None:
                sums.append(sums_of(cond, target[place]))
    if measured is not None:
        measured.append(joined(sums, out))
    return out


def _add_up(
    out: Any, base: Any, cond: Any, parts: list, gain: Any, factor: Any, off: Any, *amounts: Any
) -> None:
    """One piece of the sum, into `out`, which the first of `parts` may be: numpy, or torch."""
    kit = np if isinstance(out, np.ndarray) else torch
    total = base
    if gain is not None:
        total = kit.multiply(base, gain, out=kit.empty_like(base))
    for part, amount in zip(parts, amounts):
        if total is out:
            out += kit.multiply(part, amount, out=kit.empty_like(part))
        else:
            kit.multiply(part, amount, out=out)
            out += total
            total = out
    if factor is not None:
        kit.multiply(total, factor, out=out)
    elif total is not out:
        out[...] = total
    if off is not None:
        out[...] = kit.where(off, cond, out)


def _beside(values_BF: Any, rows: Any) -> Any:
    """One number per frame beside the views of `rows_of`, in float32 or better; no one waits."""
    if isinstance(rows, np.ndarray):
        values = np.asarray(values_BF)
        return values.astype(values.dtype if values.dtype == bool else rows.dtype)[
            ..., None, None, None
        ]
    if isinstance(values_BF, np.ndarray):
        values_BF = torch.from_numpy(np.ascontiguousarray(values_BF))
    if values_BF.dtype != torch.bool:
        values_BF = values_BF.to(torch.promote_types(rows.dtype, torch.float32))
    return values_BF.to(rows.device, non_blocking=True)[..., None, None, None]
