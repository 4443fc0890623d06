"""What tames a guided prediction: rescale (on coefficients), dynamic threshold and clamp (on the tensor).

The order is fixed: method -> rescale -> threshold -> clamp. Frames that are off pass untouched.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.layout import per_frame


@dataclass(frozen=True)
class Rescale:
    """Pull the spread of the guided prediction back towards that of the conditional one.

        factor = amount * spread(cond) / spread(guided) + 1 - amount

    `by` is "std" (standard deviation, Lin et al.) or "norm" (Euclidean norm). `amount` 0 is off.
    Where the guided prediction has no spread the factor is 1, never NaN.

    Source: Lin et al. 2024, arXiv:2305.08891, section 3.4.
    """

    amount: float
    by: str = "std"

    def apply(self, combination: Combination, gram: Gram, *, statistics: str) -> Combination:
        """`combination` with every frame scaled; `gram` holds per-frame inner products.

        With clip statistics the factor is one number per sample: under a strength that differs
        between frames the guided clip is no single combination of the branches, so its moments are
        summed over its frames.
        """
        guided_BFV = combination.absolute(gram.branches).to(gram.inner)
        cond_BFV = torch.zeros_like(guided_BFV)
        cond_BFV[..., gram.branches.index("cond")] = 1
        guided_BF, cond_BF = (self._spread(gram, a, statistics) for a in (guided_BFV, cond_BFV))
        ratio = torch.where(guided_BF > 0, (cond_BF / guided_BF.clamp_min(1e-300)).sqrt(), 1.0)
        return combination.scaled(self.amount * ratio + (1 - self.amount))

    def _spread(self, gram: Gram, a_BFV: Tensor, statistics: str) -> Tensor:
        """Variance, or squared norm up to a constant, of the combination."""
        if statistics == "frame":
            return _quadratic(gram.covariance() if self.by == "std" else gram.inner, a_BFV)
        energy_B = _quadratic(gram.inner, a_BFV).mean(dim=1)
        if self.by == "std":
            mean_B = (a_BFV * gram.mean).sum(dim=-1).mean(dim=1)
            energy_B = (energy_B / gram.count - mean_B**2).clamp_min(0)
        return energy_B[:, None].expand(a_BFV.shape[:2])


def frame_std(combination: Combination, gram: Gram) -> Float[Tensor, "B F"]:
    """The standard deviation (biased) of every frame of a combination, from a per-frame Gram matrix."""
    a_BFV = combination.absolute(gram.branches).to(gram.inner)
    return _quadratic(gram.covariance(), a_BFV).sqrt()


def _quadratic(form_BFVV: Tensor, a_BFV: Tensor) -> Tensor:
    return torch.einsum("bfi,bfij,bfj->bf", a_BFV, form_BFVV, a_BFV).clamp_min(0)


@dataclass(frozen=True)
class Threshold:
    """Dynamic thresholding of the predicted clean video x0.

        q = percentile of |x0|;  where q > floor: x0 = clip(x0, -q, q) * floor / q

    Taken per frame or per clip. `floor` is the size that x0 may have: 1 for pixels, larger for latents.
    A percentile of 100 with a large floor is off.

    Source: Saharia et al. 2022 (Imagen), arXiv:2205.11487, section 2.3; the settable floor is ours.
    """

    percentile: float = 99.5
    floor: float = 1.0

    def apply(self, x0: Float[Tensor, "B F ..."], *, statistics: str) -> Float[Tensor, "B F ..."]:
        q_BF = _order_statistic(x0.abs(), self.percentile / 100, statistics)
        q_BF = per_frame(q_BF, x0)
        tamed = torch.minimum(torch.maximum(x0, -q_BF), q_BF) * (self.floor / q_BF.clamp_min(1e-30))
        return torch.where(q_BF > self.floor, tamed, x0)


def _order_statistic(values: Tensor, fraction: float, statistics: str) -> Tensor:
    """Linear-interpolated quantile per frame (or per clip, repeated), as `torch.quantile`."""
    flat = values.float().flatten(1 if statistics == "clip" else 2)
    count = flat.shape[-1]
    position = fraction * (count - 1)
    below = int(position)
    low = flat.kthvalue(below + 1, dim=-1).values
    high = flat.kthvalue(min(below + 2, count), dim=-1).values
    quantile = torch.lerp(low, high, position - below)
    return quantile[:, None].expand(values.shape[:2]) if statistics == "clip" else quantile


@dataclass(frozen=True)
class Clamp:
    """Clip the guided prediction to `deviations` standard deviations around its mean.

    Taken per frame or per clip. None (no clamp) is off.
    """

    deviations: float

    def apply(self, guided: Float[Tensor, "B F ..."], *, statistics: str) -> Float[Tensor, "B F ..."]:
        flat = guided.double().flatten(1 if statistics == "clip" else 2)
        mean, spread = flat.mean(-1), flat.std(-1, correction=0)
        if statistics == "clip":
            mean, spread = (m[:, None].expand(guided.shape[:2]) for m in (mean, spread))
        low, high = mean - self.deviations * spread, mean + self.deviations * spread
        low, high = (per_frame(bound, guided).to(guided.dtype) for bound in (low, high))
        return torch.minimum(torch.maximum(guided, low), high)
