"""Guidance that evaluates the unconditional branch on some steps only."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rules.base import (
    Level,
    Method,
    Rows,
    Vectors,
    from_uncond,
    guided_by_both,
    is_off,
)


@dataclass(frozen=True)
class DeltaReuse(Method):
    """Plain guidance that keeps cond - uncond for up to `every` steps.

        d_k = cond_k - uncond_k         on the first guided step, and `every` steps after the last
        d_k = d of the last such step   else: the unconditional branch is left out
        guided_f = cond_f + (strength_f - 1) d_k,f

    The difference is that of predictions, not of x0. It is made anew when another expert takes
    over. `every` 1 is plain guidance, bit for bit (off). Both evaluations of a step of a
    second-order solver share the decision.

    Source: the guidance cache of FastVideo, and of FasterCache, Lv et al. 2024, arXiv:2410.19355,
    without its frequency weights.
    """

    every: int = 2
    name: ClassVar[str] = "delta_reuse"
    branches: ClassVar[tuple[str, ...]] = ("cond", "uncond")

    @property
    def extras(self) -> tuple[str, ...]:
        return ("delta",) if self.every > 1 else ()

    @property
    def remembers(self) -> tuple[str, ...]:
        return self.extras

    def sources(self) -> dict[str, str]:
        return {"uncond": "negative"}

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"cond": strength}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        return guided_by_both(self.deltas(strength_F, weight_F))

    def steps(
        self,
        strength_KF: np.ndarray,
        weights_KF: np.ndarray,
        *,
        experts: tuple[str, ...] | None = None,
        levels: tuple[tuple[Level, Level], ...] | None = None,
    ) -> tuple[Method, ...]:
        found, last = [], {}
        for k, strength_F in enumerate(strength_KF):
            expert = None if experts is None else experts[k]
            reuse = expert in last and k - last[expert] < self.every
            if (strength_F != 1).any() and not reuse:
                last = {expert: k}
            found.append(Reuse(self) if reuse else self)
        return tuple(found)

    def extra(self, vectors: Vectors) -> dict[str, Any]:
        return {"delta": vectors.difference("cond", "uncond")} if self.every > 1 else {}

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        return from_uncond(self.deltas(strength_BF, weight_BF))


@dataclass(frozen=True)
class Reuse(Method):
    """A step of `method` that takes cond - uncond from an earlier one."""

    method: DeltaReuse
    name: ClassVar[str] = "delta_reuse"
    branches: ClassVar[tuple[str, ...]] = ("cond", "uncond")
    base: ClassVar[str] = "cond"
    extras: ClassVar[tuple[str, ...]] = ("delta",)

    def sources(self) -> dict[str, str]:
        return self.method.sources()

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"delta": strength - 1}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        return frozenset({"cond"})

    def extra(self, vectors: Vectors) -> dict[str, Any]:
        return {"delta": vectors.remembered["delta"]}

    def combination(
        self, gram: Gram | None, *, strength_BF: np.ndarray, weight_BF: np.ndarray
    ) -> Combination:
        deltas = self.deltas(strength_BF, weight_BF)
        return Combination("cond", None, {}, is_off(deltas), extra_BF=deltas)
