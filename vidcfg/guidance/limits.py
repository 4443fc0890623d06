"""What tames a guided prediction: rescale (on coefficients), dynamic threshold and clamp (on it).

The order is fixed: method -> rescale -> threshold -> clamp. Frames that are off pass untouched.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.layout import per_frame
from vidcfg.guidance.shapes import Bool, Float, Float64
from vidcfg.settings.base import ConfigModel, Fraction, Positive, Range, refuse
from vidcfg.settings.validation import number_advice

_NOISE = 1e-7
"""Relative error of a float32 reduction: a variance below this share of its terms is none."""


class Rescale(ConfigModel):
    """Pull the spread of the guided prediction back towards that of the conditional one.

        factor = amount * spread(cond) / spread(guided) + 1 - amount

    `by` is "std" (standard deviation, Lin et al.) or "norm" (Euclidean norm). `amount` 0 is off.
    Where the guided prediction has no spread the factor is 1, never NaN. Frames to which `cond`
    contributes nothing (strength 0) are left alone: it may not have been evaluated for them.

    `space` is what is measured and scaled: the `prediction`, the clean video `x0`, or what the
    stock `pipeline` does (x0 for LTX-2, else the prediction).

    Source: Lin et al. 2024, arXiv:2305.08891, section 3.4.
    """

    amount: Fraction = Field(description="a number from 0 to 1, 0 = off")
    by: Literal["std", "norm"] = "std"
    space: Literal["pipeline", "prediction", "x0"] = "pipeline"

    @property
    def is_off(self) -> bool:
        return self.amount == 0

    def apply(
        self,
        combination: Combination,
        gram: Gram,
        *,
        statistics: str,
        x0: tuple[float, float] | None = None,
    ) -> Combination:
        """`combination` with every frame scaled; `gram` holds per-frame inner products.

        `x0` is (a, b) of x0 = a x_t + b p, for the space x0; both arguments are of predictions.

        With clip statistics the factor is one number per sample: under a strength that differs
        between frames the guided clip is no single combination of the branches, so its moments are
        gathered over its frames.
        """
        import torch

        if x0 is not None:
            within = self.apply(combination.in_x0(*x0), gram.in_x0(*x0), statistics=statistics)
            return within.from_x0(*x0)
        x_BFV = combination.coefficients(gram.branches)
        if statistics == "clip":  # frames that are off are not scaled, but count in the clip
            x_BFV = _of_result(combination, gram)
        both = torch.stack([x_BFV, gram.vector("cond").expand_as(x_BFV)])
        (guided, cond), (terms, _) = self._energy(gram, both, statistics)
        has_spread = guided > terms * _NOISE
        ratio = (cond / guided.where(has_spread, 1.0)).sqrt()
        # Where `cond` has no part in the result it may be missing.
        scales = has_spread & ~(abs(combination.of_predictions()["cond"]) <= 1e-12)
        factor = (self.amount * ratio + (1 - self.amount)).where(scales, 1.0)
        return combination.scaled(factor)

    def _energy(self, gram: Gram, x: Any, statistics: str) -> tuple[Any, Any]:
        """Variance (mean square for "norm") of sum_i x_i v_i, and the size of the terms in it."""
        within = gram.covariance(x, x).clamp_min(0)
        length = (gram.scatter.diagonal(dim1=-2, dim2=-1).clamp_min(0) / gram.count).sqrt()
        average = gram.average(x)
        terms = (x.abs() * length).sum(-1) ** 2 + _NOISE * average**2
        centre = 0.0
        if statistics == "clip" and self.by == "std":
            centre = average.mean(-1, keepdim=True)
        if self.by == "norm" or statistics == "clip":
            within, terms = within + (average - centre) ** 2, terms + (average - centre) ** 2
        if statistics == "clip":
            within, terms = (e.mean(-1, keepdim=True) for e in (within, terms))
        return within, terms


def _rescale_from(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"amount": value}
    if not isinstance(value, dict | ConfigModel):
        advice = number_advice(value)
        raise refuse(
            f"but must be a number from 0 (off) to 1, or {{amount: 0.7, by: norm}}.{advice}"
        )
    return value


RescaleSetting = Annotated[Rescale, BeforeValidator(_rescale_from)]
"""A `Rescale`; its amount alone is enough."""


def frame_std(combination: Combination, gram: Gram) -> Float64[Any, "B F"]:
    """The standard deviation (biased) of every frame of a combination, from a per-frame Gram."""
    x = _of_result(combination, gram)
    return gram.covariance(x, x).clamp_min(0).sqrt()


def _of_result(combination: Combination, gram: Gram) -> Float64[Any, "B F V"]:
    """The coefficients on the vectors of a Gram, those of `cond` for frames that are off."""
    x = combination.coefficients(gram.branches)
    return gram.vector("cond").where(combination.off_BF[..., None], x)


class Threshold(ConfigModel):
    """Dynamic thresholding of the predicted clean video x0.

        q = max(percentile of |x0|, floor);  x0 = clip(x0, -q, q) * floor / q

    Taken per frame or per clip. `floor` is the size that x0 may have: 1 for pixels, larger for
    latents. Where the percentile is below the floor, elements up to the floor are kept bit for
    bit. A floor above all of |x0| is off.

    Source: Saharia et al. 2022 (Imagen), arXiv:2205.11487, section 2.3; the floor is ours to set.
    """

    percentile: Annotated[float, Range(50, 100, above=True)] = 99.5
    floor: Positive = 1.0

    def limit(
        self,
        noisy: Float[Any, "B F ..."],
        guided: Float[Any, "B F ..."],
        levels: tuple[float, float, float, float],
        *,
        statistics: str,
        off_BF: Bool[Any, "B F"],
    ) -> Float[Any, "B F ..."]:
        """The prediction of the thresholded x0 = a noisy + b guided; what x0 keeps keeps its bits.

        levels = (a, b, c, d), with the prediction as c noisy + d x0; `noisy` is in float32 or
        better. Frames that are off stay as they are. In `guided` itself where the compiled loops
        serve.
        """
        import torch

        from vidcfg.guidance.planes import limit_x0, planes

        a, b, c, d = levels
        serves = noisy.dtype == torch.float32 and noisy.device.type == "cpu"
        arrays = planes(noisy, guided) if serves else None
        if arrays is not None:
            limit_x0(*arrays, levels, self, statistics=statistics, off_BF=off_BF)
            return guided
        x0 = (noisy * a).add_(guided.to(noisy.dtype), alpha=b)
        tamed = self.apply(x0, statistics=statistics)
        kept = tamed == x0
        if off_BF.any():
            kept |= per_frame(torch.from_numpy(off_BF).to(x0.device, non_blocking=True), x0)
        return torch.where(kept, guided, tamed.mul_(d).add_(noisy, alpha=c).to(guided.dtype))

    def apply(self, x0: Float[Any, "B F ..."], *, statistics: str) -> Float[Any, "B F ..."]:
        """The thresholded x0, a new tensor."""
        rows = x0.flatten(1)[:, None] if statistics == "clip" else x0.flatten(2)
        q_BF = _order_statistic(rows.abs(), self.percentile / 100).expand(x0.shape[:2])
        q = per_frame(q_BF.clamp_min(self.floor), x0)
        return x0.clamp(-q, q).mul_(self.floor / q)


def _order_statistic(values: Any, fraction: float) -> Any:
    """Linear-interpolated quantile along the last axis, as `torch.quantile` without its sort."""
    position = fraction * (values.shape[-1] - 1)
    below = int(position)
    largest = values.topk(values.shape[-1] - below, sorted=False).values
    low = largest.kthvalue(1).values
    return low.lerp(largest.kthvalue(2).values, position - below) if position > below else low


def clamp(
    guided: Float[Any, "B F ..."], deviations: float, *, statistics: str
) -> Float[Any, "B F ..."]:
    """The prediction clipped to `deviations` standard deviations around its mean, a new tensor.

    Taken per frame or per clip, once: the result's own deviation is smaller. Elements inside the
    bounds keep their bits.
    """
    flat = guided.float() if guided.itemsize < 4 else guided
    flat = flat.flatten(1 if statistics == "clip" else 2)
    mean, spread = flat.mean(-1), flat.std(-1, correction=0)
    if statistics == "clip":
        mean, spread = (m[:, None].expand(guided.shape[:2]) for m in (mean, spread))
    low, high = mean - deviations * spread, mean + deviations * spread
    low, high = (per_frame(bound, guided).to(guided.dtype) for bound in (low, high))
    return guided.clamp(low, high)
