"""The coefficients of the weighted sum that every rule comes down to: of numpy, or of tensors."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vidcfg.guidance.gram import NOISY
from vidcfg.guidance.shapes import Bool, Float64


@dataclass(frozen=True, eq=False)
class Combination:
    """Coefficients of the branch predictions, written from a base branch.

        guided_f = factor_f * (gain_f * p_base + sum_b delta_fb * (p_b - p_base)
                                               + sum_v extra_fv * v)

    Written this way and not as `sum_b a_b p_b`, because with one delta it is
    `uncond + s * (cond - uncond)` in the very operations of the stock pipelines, hence the same
    bits. A gain or factor of None is exactly 1. The v are further vectors: those that a rule
    makes (`Method.extra`) and the noisy sample. `off_BF` marks the frames that return `cond` bit
    for bit, untouched by any limit. `stop_BF` marks the frames for which the rule is off from the
    next evaluation to the end of the run (None: it never stops by itself).

    Numpy arrays where the surface alone decides; tensors on the device of the predictions, with
    whose Gram they were made, else.
    """

    base: str
    gain_BF: Float64[Any, "B F"] | None
    delta_BF: dict[str, Float64[Any, "B F"]]
    off_BF: Bool[Any, "B F"]
    factor_BF: Float64[Any, "B F"] | None = None
    extra_BF: dict[str, Float64[Any, "B F"]] = field(default_factory=dict)
    stop_BF: Bool[Any, "B *N F"] | None = None

    def coefficients(self, branches: tuple[str, ...]) -> Float64[Any, "B F V"]:
        """The coefficients, tensors, on the vectors of a `Gram` with these branches."""
        import torch

        gain = 1 + 0 * as_number(self.off_BF) if self.gain_BF is None else self.gain_BF
        known = {**self.delta_BF, **self.extra_BF, self.base: gain}
        none = torch.zeros_like(gain)
        factor = 1.0 if self.factor_BF is None else self.factor_BF[..., None]
        return factor * torch.stack([known.get(b, none) for b in branches], -1)

    def of_predictions(self) -> dict[str, Float64[Any, "B F"]]:
        """The coefficient a_b of every prediction p_b, exactly 1 on `cond` alone where off."""
        factor = 1.0 if self.factor_BF is None else self.factor_BF
        gain = 1.0 if self.gain_BF is None else self.gain_BF
        terms = self.delta_BF | {self.base: gain - sum(self.delta_BF.values())}
        off = as_number(self.off_BF)
        found = {branch: (1 - off) * factor * values for branch, values in terms.items()}
        return found | {"cond": found.get("cond", 0.0) + off}

    def of_extras(self) -> dict[str, Float64[Any, "B F"]]:
        """The coefficient of every further vector, 0 where off."""
        factor = 1.0 if self.factor_BF is None else self.factor_BF
        on = (1 - as_number(self.off_BF)) * factor
        return {name: on * values for name, values in self.extra_BF.items()}

    def scaled(self, factor_BF: Float64[Any, "B F"]) -> "Combination":
        """This combination multiplied by one factor per frame."""
        known = 1.0 if self.factor_BF is None else self.factor_BF
        return replace(self, factor_BF=known * factor_BF)

    def from_x0(self, a: float, b: float) -> "Combination":
        """A combination of predicted clean videos x0 = a x_t + b p, as one of predictions.

        The coefficients on predictions are the same; where they do not sum to 1, x_t gets what
        makes up for it: (sum - 1) a / b.
        """
        factor = 1.0 if self.factor_BF is None else self.factor_BF
        extra = {name: factor * values / b for name, values in self.extra_BF.items()}
        if self.gain_BF is None and self.factor_BF is None:
            return replace(self, extra_BF=extra)
        gain = factor * (1.0 if self.gain_BF is None else self.gain_BF)
        if a != 0:
            extra[NOISY] = extra.get(NOISY, 0.0) + (gain - 1) * (a / b)
        extra = {name: (1 - as_number(self.off_BF)) * values for name, values in extra.items()}
        deltas = {branch: factor * values for branch, values in self.delta_BF.items()}
        return replace(self, gain_BF=gain, delta_BF=deltas, factor_BF=None, extra_BF=extra)

    def in_x0(self, a: float, b: float) -> "Combination":
        """A combination of predictions as one of x0 = a x_t + b p; undoes `from_x0`."""
        factor = 1.0 if self.factor_BF is None else self.factor_BF
        gain = factor * (1 + 0 * as_number(self.off_BF) if self.gain_BF is None else self.gain_BF)
        extra = {name: b * factor * values for name, values in self.extra_BF.items()}
        extra[NOISY] = extra.get(NOISY, 0.0) + a * (1 - gain)
        deltas = {branch: factor * values for branch, values in self.delta_BF.items()}
        return replace(self, gain_BF=gain, delta_BF=deltas, factor_BF=None, extra_BF=extra)


def as_number(truth: Any) -> Any:
    """1.0 where true, else 0.0, as float64 of the same kind."""
    return truth.astype(np.float64) if isinstance(truth, np.ndarray) else truth.double()
