"""CFG-Zero*: guidance with a fitted unconditional prediction, and first steps that do not move."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import AgainstUncond, Method, is_off, ratio


@dataclass(frozen=True)
class ZeroStar(AgainstUncond):
    """Guidance that starts from the multiple of `uncond` that is nearest to `cond`.

        a = <cond, uncond> / <uncond, uncond>
        guided_f = a uncond_f + strength_f * (cond_f - a uncond_f)

    On the first `zero_init_steps` steps of the run the guided frames of a flow model stay where
    they are (a velocity of zero): no branch is evaluated, and limits do not apply. Frames of
    strength 1 are `cond` on these steps too. 0 is off. Where `uncond` is zero a is 1.

    Raises:
        ValueError: if `zero_init_steps` leaves no step of the run.

    Source: Fan et al. 2025, arXiv:2503.18886.
    """

    zero_init_steps: int = 1
    space: str = "prediction"
    name: ClassVar[str] = "zero_star"
    needs_gram: ClassVar[bool] = True

    def steps(
        self, strength_KF: np.ndarray, weights_KF: np.ndarray, **run: object
    ) -> tuple[Method, ...]:
        count, num_steps = self.zero_init_steps, len(strength_KF)
        if count >= num_steps:
            raise ValueError(
                f"guidance.method.zero_init_steps is {count}, but the run has {num_steps} "
                f"step{'s' * (num_steps != 1)}, so that none would be made. Use "
                f"{'0' if num_steps == 1 else f'at most {num_steps - 1}'}."
            )
        return (ZeroInit(self),) * count + (self,) * (num_steps - count)

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        deltas = self.deltas(strength_BF, weight_BF)
        fit = ratio(gram.dot("cond", "uncond"), gram.dot("uncond", "uncond"), 1.0)
        gain = strength_BF + fit * (1 - strength_BF)
        return Combination("uncond", gain, deltas, is_off(deltas))


@dataclass(frozen=True)
class ZeroInit(Method):
    """A step of `method` on which every frame that it would guide gets a prediction of zero."""

    method: Method
    base: ClassVar[str] = "cond"
    is_limited: ClassVar[bool] = False
    flow_only: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def branches(self) -> tuple[str, ...]:
        return self.method.branches

    def over(self, terms: tuple[Method, ...]) -> Method:
        """The same for a step of several terms, of which this is one."""
        from vidcfg.guidance.rules.composite import Composite

        plain = (term.method if isinstance(term, ZeroInit) else term for term in terms)
        return ZeroInit(Composite(tuple(plain)))

    def sources(self) -> dict[str, str]:
        return self.method.sources()

    def deltas(self, strength: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
        return {"zero": 1.0 - self.method.is_off(strength, weight)}

    def is_off(self, strength: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return self.method.is_off(strength, weight)

    def required(self, strength_F: np.ndarray, weight_F: np.ndarray) -> frozenset[str]:
        return frozenset({"cond"} if self.is_off(strength_F, weight_F).any() else ())

    def combination(
        self, gram: Gram | None, *, strength_BF: np.ndarray, weight_BF: np.ndarray
    ) -> Combination:
        off = self.is_off(strength_BF, weight_BF)
        return Combination("cond", off.astype(np.float64), {}, off)
