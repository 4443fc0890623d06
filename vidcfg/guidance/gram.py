"""One reduction for every rule: inner products and means of the branch predictions.

A rule reads the tensors only through these few numbers, so they are taken once per step, whatever
the number of rules, limits and scales. They live on the CPU in float64; a rule's coefficients are
numpy. `gram_of` alone touches predictions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidcfg.guidance.layout import elements_per_frame
from vidcfg.guidance.shapes import Float, Float64

NOISY = "x_t"
"""The name of the noisy sample among the vectors of a Gram."""

_PIECE = 2**18
"""Elements of one prediction reduced at a time on a CPU, so that products stay in its cache."""


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
    scatter: Float64[np.ndarray, "B G V V"]
    mean: Float64[np.ndarray, "B G V"]
    count: int
    raw: tuple[str, ...] = ()
    per_frame: "Gram | None" = None

    def vector(self, branch: str, minus: str | None = None) -> Float64[np.ndarray, "V"]:
        """The coefficients of p_branch, or of p_branch - p_minus, on the vectors v_i."""
        if minus is not None:
            return self.vector(branch) - self.vector(minus)
        vector = np.zeros(len(self.branches))
        vector[self.branches.index(branch)] = 1.0
        if branch not in self.raw:
            vector[0] = 1.0
        return vector

    def average(self, x: Float64[np.ndarray, "*x V"]) -> Float64[np.ndarray, "B G"]:
        """The mean of sum_i x_i v_i."""
        return (self.mean * x).sum(axis=-1)

    def covariance(
        self, x: Float64[np.ndarray, "*x V"], y: Float64[np.ndarray, "*B V"]
    ) -> Float64[np.ndarray, "B G"]:
        """The biased covariance (divided by the count) of sum_i x_i v_i and sum_j y_j v_j."""
        return _bilinear(self.scatter, x, y) / self.count

    def inner(
        self, x: Float64[np.ndarray, "*x V"], y: Float64[np.ndarray, "*B V"]
    ) -> Float64[np.ndarray, "B G"]:
        """The inner product of sum_i x_i v_i and sum_j y_j v_j."""
        means = self.average(x) * self.average(y)
        return _bilinear(self.scatter, x, y) + self.count * means

    def dot(self, first: str, second: str) -> Float64[np.ndarray, "B G"]:
        """<p_first, p_second>."""
        return self.inner(self.vector(first), self.vector(second))

    def difference_dot(
        self, first: tuple[str, str], second: tuple[str, str]
    ) -> Float64[np.ndarray, "B G"]:
        """<p_a - p_b, p_c - p_d> for first = (a, b), second = (c, d)."""
        return self.inner(self.vector(*first), self.vector(*second))

    def clip(self) -> "Gram":
        """The same for the whole clip as one group (G = 1)."""
        mean = self.mean.mean(axis=1, keepdims=True)
        apart = self.mean - mean
        between = (apart[..., :, None] * apart[..., None, :]).sum(axis=1, keepdims=True)
        scatter = self.scatter.sum(axis=1, keepdims=True) + self.count * between
        count = self.count * self.mean.shape[1]
        return replace(self, scatter=scatter, mean=mean, count=count, per_frame=self)

    def energy(self, x_BFV: Float64[np.ndarray, "B F V"]) -> Float64[np.ndarray, "B G"]:
        """The squared norm of sum_i x_i v_i, whose coefficients may differ between frames."""
        if self.per_frame is None:
            return np.maximum(self.inner(x_BFV, x_BFV), 0.0)
        return self.per_frame.energy(x_BFV).sum(axis=1, keepdims=True)

    def in_x0(self, a: float, b: float) -> "Gram":
        """The same for x0_b = a x_t + b p_b in place of p_b; raw vectors stay what they are."""
        change = np.diag([1.0 if name in self.raw else b for name in self.branches])
        change[0, self.branches.index(NOISY)] = a
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


def _bilinear(form: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x[..., :, None] * form * y[..., None, :]).sum(axis=(-2, -1))


def differences_from(base: str, predictions: Mapping[str, Any]) -> dict[str, Any]:
    """p_b - p_base for every other branch, in the dtype of the predictions: new tensors."""
    return {b: p - predictions[base] for b, p in predictions.items() if b != base}


def gram_of(
    predictions: Mapping[str, Float[Any, "B F ..."]],
    *,
    base: str | None = None,
    differences: Mapping[str, Float[Any, "B F ..."]] | None = None,
    raw: Mapping[str, Float[Any, "B F ..."]] | None = None,
) -> Gram:
    """The per-frame Gram matrix of `predictions`, each a (B, F, ...) view.

    `base` is the branch that differences are taken from (None: the first); `differences` are those
    from it where they are at hand; `raw` are further vectors. Samples are reduced one by one, so
    that the result of a sample does not depend on its batch neighbours, bit for bit.
    """
    base = base or next(iter(predictions))
    if differences is None:
        differences = differences_from(base, predictions)
    raw = raw or {}
    vectors = [predictions[base], *differences.values(), *raw.values()]
    count = elements_per_frame(vectors[0])
    # Sample by sample; a second time around the mean where it is large against the spread.
    moments = [_moments([v[b] for v in vectors]) for b in range(len(vectors[0]))]
    means, scatters = [], []
    for b, sums in enumerate(moments):
        mean, scatter = _centre(sums, len(vectors), count)
        squares = np.diagonal(scatter, axis1=-2, axis2=-1)
        if (squares < count * mean**2).any():
            shift = mean.astype(np.float32)
            residual, scatter = _centre(
                _moments([v[b] for v in vectors], shift), len(vectors), count
            )
            mean = shift + residual
        means.append(mean)
        scatters.append(scatter)
    names = (base, *differences, *raw)
    return Gram(names, np.stack(scatters), np.stack(means), count, tuple(raw))


def spread_of(frames: Float[Any, "B F ..."]) -> Float64[np.ndarray, "B F"]:
    """The standard deviation (biased) of every frame, for less than a Gram takes."""
    import torch

    wide = torch.promote_types(frames.dtype, torch.float32)
    count, found = elements_per_frame(frames), []
    for sample in frames:
        rows = sample.flatten(1)[:, None] if sample.is_contiguous() else sample.flatten(2)
        rows = rows.to(wide)
        sums = torch.stack([rows.sum(dim=-1), torch.linalg.vector_norm(rows, dim=-1)])
        total, norm = sums.cpu().numpy().astype(np.float64)
        mean = total.sum(axis=-1) / count
        variance = (norm**2).sum(axis=-1) / count - mean**2
        if (variance < mean**2).any():
            gram = gram_of({"frames": sample[None]})
            variance = gram.covariance(gram.vector("frames"), gram.vector("frames"))[0]
        found.append(np.sqrt(np.maximum(variance, 0.0)))
    return np.stack(found)


def _moments(vectors: Sequence[Any], shift: np.ndarray | None = None) -> Any:
    """Sums of v_i - shift_i, then of their products for i <= j: axes (F, rows of a frame, these).

    Plain products and sums, since a matrix product would lose bits under autocast and TF32.
    """
    import torch

    first = vectors[0]
    wide = torch.promote_types(first.dtype, torch.float32)
    flat = all(v.is_contiguous() for v in vectors)
    rows = [v.flatten(1)[:, None] if flat else v.flatten(2) for v in vectors]
    piece = len(first) if first.device.type != "cpu" else max(1, _PIECE // first[0].numel())
    found = []
    for f in range(0, len(first), piece):
        part = [row[f : f + piece].to(wide) for row in rows]
        if shift is not None:
            shifts = torch.from_numpy(shift[f : f + piece]).to(device=first.device, dtype=wide)
            part = [p - shifts[:, i, None, None] for i, p in enumerate(part)]
        products = [p * q for i, p in enumerate(part) for q in part[i:]]
        sums = [p.sum(dim=-1).flatten(1) for p in part + products]
        found.append(torch.stack(sums, dim=-1))
    return torch.cat(found)


def _centre(sums: Any, num_vectors: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (F, V) and scatter (F, V, V) from the sums of `_moments`."""
    sums = sums.cpu().numpy().astype(np.float64).sum(axis=1)
    mean = sums[:, :num_vectors] / count
    scatter = np.empty((len(sums), num_vectors, num_vectors))
    upper = np.triu_indices(num_vectors)
    scatter[:, upper[0], upper[1]] = scatter[:, upper[1], upper[0]] = sums[:, num_vectors:]
    return mean, scatter - count * mean[:, :, None] * mean[:, None, :]
