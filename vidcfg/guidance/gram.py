"""One reduction for every rule: inner products and means of the branch predictions.

A rule reads the tensors only through these few numbers, so they are taken once per step, whatever
the number of rules, limits and scales. They stay on the device of the predictions, in float64: no
step waits for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from vidcfg.guidance.layout import MOST, SMALL, elements_per_frame
from vidcfg.guidance.shapes import Float, Float64

NOISY = "x_t"
"""The name of the noisy sample among the vectors of a Gram."""

HOST = ("cpu", "mps")
"""Devices on which every number is at hand: a step may look at it, and sums piece by piece."""

_PIECE = 2**18
"""Elements of one prediction worked on at a time on a CPU, so that they stay in its cache."""
_ROW = 2**13
"""Elements that a CPU sums in one go: more would take several threads, and lose digits."""


@dataclass(frozen=True, eq=False)
class Gram:
    """Second moments of branch predictions, per sample and per group of frames.

    Axes: B samples, G groups (F for frame statistics, 1 for clip statistics), V branches. The
    moments are those of the vectors that combinations are written in, the base prediction and the
    differences from it:

        v_0 = p_base,  v_i = p_i - p_base       `branches` names p_base, p_1, ...
        mean[b, g, i]       = mean of v_i over the group
        scatter[b, g, i, j] = sum over the group of (v_i - mean_i) (v_j - mean_j)

    The names in `raw` stand for further vectors (x_t, vectors that a rule makes), which are no
    differences; they come last in `branches`. A clip Gram keeps the frames' own as `per_frame`.

    Centred, so that a mean that is large against the spread takes nothing from it; differences, so
    that nearly equal predictions keep their small difference to float32 accuracy.
    """

    branches: tuple[str, ...]
    scatter: Float64[Any, "B G V V"]
    mean: Float64[Any, "B G V"]
    count: int
    raw: tuple[str, ...] = ()
    per_frame: "Gram | None" = None

    def vector(self, branch: str, minus: str | None = None) -> Float64[Any, "V"]:
        """The coefficients of p_branch, or of p_branch - p_minus, on the vectors v_i."""
        if minus is not None:
            return self.vector(branch) - self.vector(minus)
        place = self.branches.index(branch)
        unit = self._units[place]
        return unit if branch in self.raw or place == 0 else unit + self._units[0]

    @cached_property
    def _units(self) -> Any:
        return _at(self.mean, np.eye(len(self.branches)))

    def average(self, x: Float64[Any, "*x V"]) -> Float64[Any, "*n G"]:
        """The mean of sum_i x_i v_i."""
        return (self.mean * x).sum(-1)

    def covariance(self, x: Float64[Any, "*x V"], y: Float64[Any, "*y V"]) -> Float64[Any, "*n G"]:
        """The biased covariance (divided by the count) of sum_i x_i v_i and sum_j y_j v_j."""
        return _bilinear(self.scatter, x, y) / self.count

    def spread(self, branch: str) -> Float64[Any, "B G"]:
        """The biased standard deviation of p_branch."""
        vector = self.vector(branch)
        return self.covariance(vector, vector).clamp_min(0).sqrt()

    def inner(self, x: Float64[Any, "*x V"], y: Float64[Any, "*B V"]) -> Float64[Any, "B G"]:
        """The inner product of sum_i x_i v_i and sum_j y_j v_j."""
        means = self.average(x) * self.average(y)
        return _bilinear(self.scatter, x, y) + self.count * means

    def dot(self, first: str, second: str) -> Float64[Any, "B G"]:
        """<p_first, p_second>."""
        return self.inner(self.vector(first), self.vector(second))

    def clip(self) -> "Gram":
        """The same for the whole clip as one group (G = 1)."""
        mean = self.mean.mean(1, keepdim=True)
        apart = self.mean - mean
        between = (apart[..., :, None] * apart[..., None, :]).sum(1, keepdim=True)
        scatter = self.scatter.sum(1, keepdim=True) + self.count * between
        count = self.count * self.mean.shape[1]
        return replace(self, scatter=scatter, mean=mean, count=count, per_frame=self)

    def energy(self, x_BFV: Float64[Any, "B F V"]) -> Float64[Any, "B G"]:
        """The squared norm of sum_i x_i v_i, whose coefficients may differ between frames."""
        if self.per_frame is None:
            return self.inner(x_BFV, x_BFV).clamp_min(0)
        return self.per_frame.energy(x_BFV).sum(1, keepdim=True)

    def in_x0(self, a: float, b: float) -> "Gram":
        """The same for x0_b = a x_t + b p_b in place of p_b; raw vectors stay what they are."""
        change = np.eye(len(self.branches))
        change[: len(change) - len(self.raw)] *= b
        change[0, self.branches.index(NOISY)] = a
        change = _at(self.mean, change)
        scatter = change @ self.scatter @ change.T
        frames = None if self.per_frame is None else self.per_frame.in_x0(a, b)
        return replace(self, scatter=scatter, mean=self.mean @ change.T, per_frame=frames)

    def of_term(self, prefix: str) -> "Gram":
        """The same, with raw vectors `<prefix><name>` under `<name>`."""
        raw, branches = (
            tuple(name.removeprefix(prefix) if name in self.raw else name for name in names)
            for names in (self.raw, self.branches)
        )
        frames = None if self.per_frame is None else self.per_frame.of_term(prefix)
        return replace(self, branches=branches, raw=raw, per_frame=frames)


def _at(like: Any, values: np.ndarray) -> Any:
    """Numbers that the host knows, made there and copied once, beside a tensor."""
    import torch

    return torch.from_numpy(values).to(like.device, like.dtype, non_blocking=True)


def _bilinear(form: Any, x: Any, y: Any) -> Any:
    return (x[..., :, None] * form * y[..., None, :]).sum((-2, -1))


def gram_of(
    predictions: Mapping[str, Float[Any, "B F ..."]],
    *,
    base: str | None = None,
    raw: Mapping[str, Float[Any, "B F ..."]] | None = None,
) -> Gram:
    """The per-frame Gram matrix of `predictions`, each a (B, F, ...) view.

    `base` is the branch that differences are taken from (None: the first); `raw` are further
    vectors. The numbers of a sample do not depend on its batch neighbours, bit for bit.
    """
    import torch

    base = base or next(iter(predictions))
    others = {name: p for name, p in predictions.items() if name != base}
    raw = raw or {}
    vectors = [predictions[base], *others.values(), *raw.values()]
    count, size = elements_per_frame(vectors[0]), len(vectors)

    # A second time around the mean where it is large against the spread.
    sums = _moments(vectors, len(others))
    if vectors[0].device.type == "cpu":
        mean, scatter = _centre(sums.numpy(), size, count)
        far = np.einsum("bfii->bfi", scatter) < count * mean**2
        for b in far.any((1, 2)).nonzero()[0].tolist():
            part = [vector[b : b + 1] for vector in vectors]
            wide = torch.promote_types(vectors[0].dtype, torch.float32)
            shift = torch.from_numpy(mean[b : b + 1]).to(wide)
            again = _moments(part, len(others), shift).numpy()
            residual, scatter[b : b + 1] = _centre(again, size, count)
            mean[b : b + 1] = shift.numpy() + residual
        mean, scatter = torch.from_numpy(mean), torch.from_numpy(scatter)
    else:
        mean, scatter = _centre(sums, size, count)
    return Gram((base, *others, *raw), scatter, mean, count, tuple(raw))


def spread_of(frames: Float[Any, "B F ..."]) -> Float64[Any, "B F"]:
    """The standard deviation (biased) of every frame, for less than a Gram takes."""
    from vidcfg.guidance.planes import moments, planes

    arrays = planes(frames)
    if arrays is not None:
        return spread(moments(arrays, 0), frames)
    if frames.device.type not in HOST:
        return launched_spread(frames)
    (rows,) = rows_of(frames)
    sums = [sums_of(rows[piece]) for piece in pieces_of(rows)]
    return spread(joined(sums, frames), frames)


def launched_spread(frames: Float[Any, "B F ..."]) -> Float64[Any, "B F"]:
    """`spread_of` in one reduction around a running mean: a GPU pays for launches."""
    import torch

    wide = frames.to(torch.promote_types(frames.dtype, torch.float32))
    return wide.std(tuple(range(2, frames.ndim)), correction=0).double()


def sums_of(*rows: Any) -> list[Any]:
    """Sum and sum of squares of every row, of one tensor after the other."""
    return [found for row in rows for found in _products([_wide(row)])]


def spread(sums: Float64[Any, "B F 2"], frames: Float[Any, "B F ..."]) -> Float64[Any, "B F"]:
    """The standard deviations of `frames`, of which these are the sums."""
    import torch

    is_host = sums.device.type == "cpu"
    numbers = sums.numpy() if is_host else sums
    mean, square = numbers[..., 0], numbers[..., 1]
    mean, square = mean / elements_per_frame(frames), square / elements_per_frame(frames)
    variance = square - mean * mean
    if not is_host:
        return variance.clamp_min(0).sqrt()
    if frames.device.type == "cpu":
        for b in (variance < mean * mean).any(1).nonzero()[0].tolist():
            variance[b] = gram_of({"frames": frames[b : b + 1]}).spread("frames")[0].numpy() ** 2
    # NaN stays NaN.
    return torch.from_numpy(np.sqrt(np.maximum(variance, 0)))


def rows_of(*tensors: Any) -> list[Any]:
    """Views (B, F, C, rows, N) of (B, F, ...) tensors, with rows of a few thousand elements.

    Of numpy for float32 and float64 on a CPU, whose calls cost less than a piece does; the
    operators, `subtract`, `multiply` and `where` of both do the same, bit for bit.
    """
    flat = all(t.is_contiguous() for t in tensors)
    rows = [t.flatten(2)[:, :, None] if flat else t.flatten(3) for t in tensors]
    size = rows[0].shape[-1]
    cut = next((k for k in range(1, 99) if size % k == 0 and size // k <= _ROW), 1)
    rows = [row.unflatten(-1, (cut, size // cut)) for row in rows]
    is_plain = all(t.device.type == "cpu" and t.itemsize >= 4 for t in tensors)
    return [row.detach().numpy() for row in rows] if is_plain else rows


def pieces_of(rows: Any) -> Iterator[tuple[slice, slice]]:
    """Which samples and frames go together: so many that a CPU keeps them in its cache.

    Samples go one by one, unless they are small, and frames in order.
    """
    count, frames = rows.shape[:2]
    samples, step, size = 1, frames, elements_per_frame(rows)
    if isinstance(rows, np.ndarray) or rows.device.type == "cpu":
        samples = max(1, min(count, SMALL // max(1, frames * size)))
        step = frames if samples > 1 else max(1, _PIECE // max(1, size))
    for b in range(0, count, samples):
        for f in range(0, frames, step):
            yield slice(b, b + samples), slice(f, f + step)


def joined(pieces: Sequence[Sequence[Any]], like: Float[Any, "B F ..."]) -> Float64[Any, "B F n"]:
    """The sums of rows that were taken piece by piece, as n sums of every frame of `like`."""
    import torch

    parts = [
        [part.reshape(part.shape[0] * part.shape[1], -1) for part in parts]
        for parts in zip(*pieces)
    ]
    if isinstance(parts[0][0], np.ndarray):
        sums = torch.from_numpy(np.stack([np.concatenate(each) for each in parts]))
    else:
        sums = torch.stack([torch.cat(each) if len(each) > 1 else each[0] for each in parts])
    sums = sums.cpu() if sums.device.type == "mps" else sums
    sums = sums.double()
    whole = sums[..., 0] if sums.shape[-1] == 1 else sums.sum(-1)
    return whole.T.unflatten(0, like.shape[:2])


def _wide(rows: Any) -> Any:
    """Rows in float32 or better."""
    import torch

    if isinstance(rows, np.ndarray):
        return rows
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _products(parts: Sequence[Any]) -> list[Any]:
    """Sums along the last axis: of every v_i, then of v_i v_j for i <= j.

    Not by matrix products of torch, which lose bits under autocast and TF32.
    """
    pairs = combinations_with_replacement(parts, 2)
    if not isinstance(parts[0], np.ndarray):
        return [_added(p) for p in parts] + [_added(p, q) for p, q in pairs]
    ones = _ones(parts[0].shape[-1], parts[0].dtype)
    return [np.vecdot(p, ones) for p in parts] + [np.vecdot(p, q) for p, q in pairs]


def _added(p: Any, q: Any = None) -> Any:
    """The sum of `p`, or of `p * q`: one product at a time is in memory.

    In float64 where nothing looks at a large mean again, which is all but the CPU.
    """
    exact = p if p.device.type in HOST else p.double()
    if q is not None:
        exact = exact * q if exact is p else exact.mul_(q)
    return exact.sum(-1 if p.device.type in HOST else (2, 3, 4))


@lru_cache
def _ones(size: int, dtype: Any) -> Any:
    return np.ones(size, dtype)


def _moments(vectors: Sequence[Any], num_others: int, shift: Any = None) -> Any:
    """Sums of v_i - shift_i, then of their products for i <= j: axes (B, F, these)."""
    from vidcfg.guidance.planes import moments, planes

    arrays = planes(*vectors) if len(vectors) <= MOST + 1 else None
    if arrays is not None:
        return moments(arrays, num_others, shift)
    rows, found = rows_of(*vectors), []
    if shift is not None and isinstance(rows[0], np.ndarray):
        shift = shift.numpy()
    for piece in pieces_of(rows[0]):
        base, *given = (row[piece] for row in rows)
        others, raw = given[:num_others], given[num_others:]
        parts = [_wide(p) for p in (base, *(p - base for p in others), *raw)]
        if shift is not None:
            parts = [p - shift[piece][..., i, None, None, None] for i, p in enumerate(parts)]
        found.append(_products(parts))
    return joined(found, rows[0])


def _centre(sums: Any, size: int, count: int) -> tuple[Any, Any]:
    """Mean (B, F, V) and scatter (B, F, V, V) from the sums of `_moments`."""
    mean, places = sums[..., :size] / count, _places(size)
    if isinstance(sums, np.ndarray):
        products = sums[..., places]
    else:
        import torch

        products = torch.stack([sums[..., i] for i in places.flat], -1)
        products = products.unflatten(-1, (size, size))
    return mean, products - count * mean[..., :, None] * mean[..., None, :]


@lru_cache
def _places(size: int) -> np.ndarray:
    """Where the sums of `_products` have that of v_i v_j, [V, V]."""
    places = np.zeros((size, size), np.intp)
    places[np.triu_indices(size)] = np.arange(size, size + size * (size + 1) // 2)
    return np.maximum(places, places.T)
