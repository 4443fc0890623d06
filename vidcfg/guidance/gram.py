"""One reduction for every rule: inner products and means of the branch predictions.

A rule reads the tensors only through these few numbers, so they are taken once per step, whatever
the number of rules, limits and scales.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Gram:
    """Inner products of branch predictions, per sample and per group of frames.

    Axes: B samples, G groups (F for frame statistics, 1 for clip statistics), V branches.

        inner[b, g, i, j] = sum over the group of p_i * p_j
        mean[b, g, i]     = mean over the group of p_i
    """

    branches: tuple[str, ...]
    inner: Float[Tensor, "B G V V"]
    mean: Float[Tensor, "B G V"]
    count: int

    def dot(self, first: str, second: str) -> Float[Tensor, "B G"]:
        """<p_first, p_second>."""
        index = self.branches.index
        return self.inner[:, :, index(first), index(second)]

    def clip(self) -> "Gram":
        """The same for the whole clip as one group (G = 1)."""
        inner, mean = self.inner.sum(1, keepdim=True), self.mean.mean(1, keepdim=True)
        return Gram(self.branches, inner, mean, self.count * self.inner.shape[1])

    def covariance(self) -> Float[Tensor, "B G V V"]:
        """Biased covariance between the branches (divided by the count)."""
        outer = self.mean[..., :, None] * self.mean[..., None, :]
        return self.inner / self.count - outer

    def difference_dot(
        self, first: tuple[str, str], second: tuple[str, str]
    ) -> Float[Tensor, "B G"]:
        """<p_a - p_b, p_c - p_d> for first = (a, b), second = (c, d)."""
        (a, b), (c, d) = first, second
        return self.dot(a, c) - self.dot(a, d) - self.dot(b, c) + self.dot(b, d)


def gram_of(predictions: dict[str, Tensor]) -> Gram:
    """The per-frame Gram matrix of `predictions`, each a (B, F, ...) view.

    The data are centred before they are multiplied, so that the variance of a prediction whose
    mean is large against its spread does not cancel; the small matrices are float64.
    """
    flat = [prediction.flatten(2).float() for prediction in predictions.values()]
    stacked = torch.stack(flat, dim=2)
    count = stacked.shape[-1]
    mean = stacked.mean(dim=3, dtype=torch.float64)
    centred = stacked - mean[..., None].to(stacked.dtype)
    residual = centred.mean(dim=3, dtype=torch.float64)
    spread = torch.matmul(centred, centred.transpose(2, 3)).double()
    spread = spread - count * residual[..., :, None] * residual[..., None, :]
    mean = mean.to(stacked.dtype).double() + residual
    inner = spread + count * mean[..., :, None] * mean[..., None, :]
    return Gram(tuple(predictions), inner, mean, count)
