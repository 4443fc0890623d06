"""What a guidance rule is to the rest of the engine."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram

Rows = Float64[np.ndarray, "*B F"]
"""Strengths or weights of F latent frames, with any axes in front."""

Level = tuple[float, float]
"""(alpha, sigma) of x_t = alpha x0 + sigma eps."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """The tensors of one step, (B, F, ...) views, from which a rule makes vectors of its own.

    Args:
        base: the branch that `differences` are taken from.
        differences: p_b - p_base of every other branch.
        remembered: what the rule's `extra` returned under its `remembers` names the last time this
            sample ran with this model; empty at first.
        x0_scale: d x0 / d prediction at this noise level; 1 for rules in prediction space.
        grid: height and width of a frame in latent elements, None where not known (tokens).
        strength_BF, weight_BF: those of the step, of samples whose rules are on and off together.
    """

    base: str
    differences: Mapping[str, Any]
    remembered: Mapping[str, Any]
    x0_scale: float = 1.0
    grid: tuple[int, int] | None = None
    strength_BF: np.ndarray | None = None
    weight_BF: np.ndarray | None = None

    def difference(self, first: str, second: str) -> Any:
        """p_first - p_second, a new tensor."""
        if second == self.base:
            return self.differences[first].clone()
        if first == self.base:
            return -self.differences[second]
        return self.differences[first] - self.differences[second]


class Method(ABC):
    """A rule: which branches it reads, and their coefficients. Every rule is one final class.

    name         its kind in a config
    branches     its model evaluations
    base         the branch that its combinations are written from
    isolated     branches whose evaluation changes the model, each run in a call of its own
    needs_gram   whether coefficients depend on the predictions themselves
    space        "prediction", or "x0": then the Gram that `combination` gets, and what it returns,
                 are those of predicted clean videos, and the engine converts both ways
    extras       names of the vectors that `extra` makes (beside the predictions)
    remembers    those of them that are kept for the sample's next guided step
    may_stop     whether a plan's counts are upper bounds (see `Combination.stop_BF`)
    needs_levels whether `steps` needs the noise levels of a solver of first order
    is_limited   whether rescale, threshold and clamp apply to its result
    flow_only    whether it has a meaning for flow predictions alone
    """

    name: ClassVar[str]
    branches: tuple[str, ...]
    base: ClassVar[str] = "uncond"
    isolated: ClassVar[frozenset[str]] = frozenset()
    needs_gram: ClassVar[bool] = False
    space: str = "prediction"
    extras: tuple[str, ...] = ()
    remembers: tuple[str, ...] = ()
    may_stop: ClassVar[bool] = False
    needs_levels: ClassVar[bool] = False
    is_limited: ClassVar[bool] = True
    flow_only: ClassVar[bool] = False

    @abstractmethod
    def sources(self) -> dict[str, str]:
        """The text each branch but `cond` sees: negative, empty, condition:<name>, or cond's."""

    @abstractmethod
    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        """How far each branch moves the result, before anything that depends on predictions.

        All that the strengths and weights of a step decide: two samples with equal predictions and
        equal deltas get equal results. From `uncond` the dictionary names `cond`, from `cond` it
        does not (see `is_off`).
        """

    @abstractmethod
    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        """The coefficients of every frame."""

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        """The branches of which a coefficient can be non-zero on a step with these values."""
        return required_by(self.deltas(strength_F, weight_F), self.base)

    def is_off(self, strength: Rows, weight: Rows) -> Bool[np.ndarray, "*B F"]:
        """Where the result is `cond`, bit for bit."""
        return is_off(self.deltas(strength, weight))

    def active(self, strength: np.ndarray, weight: np.ndarray) -> tuple[bool, ...]:
        """Whether the rule, or each of its terms, does something to some frame."""
        return (not self.is_off(strength, weight).all(),)

    def steps(
        self,
        strength_KF: np.ndarray,
        weights_KF: np.ndarray,
        *,
        experts: tuple[str, ...] | None = None,
        levels: tuple[tuple[Level, Level], ...] | None = None,
    ) -> tuple["Method", ...]:
        """The rule of each step, for rules that are not the same on all.

        `experts` names the model of each step; `levels` are the noise levels before and after
        each step of a solver of first order, None in a plan made without a scheduler.
        """
        return (self,) * len(strength_KF)

    def extra(self, vectors: Vectors) -> dict[str, Any]:
        """The rule's own vectors of this step, by the names in `extras`; none are overwritten."""
        return {}

    def coefficients(
        self,
        gram: Gram | None,
        *,
        strength_BF: np.ndarray,
        weight_BF: np.ndarray,
        x0: tuple[float, float] | None = None,
    ) -> Combination:
        """`combination` for predictions, whatever the rule's space.

        `x0` is (a, b) of x0 = a x_t + b p; a rule in x0 space gets a Gram that holds x_t.
        """
        rows = {"strength_BF": strength_BF, "weight_BF": weight_BF}
        if self.space == "prediction":
            return self.combination(gram, **rows)
        return self.combination(gram.in_x0(*x0), **rows).from_x0(*x0)


class AgainstUncond(Method):
    """A rule of `cond` and `uncond`, which sees the negative prompt, with one strength."""

    branches: ClassVar[tuple[str, ...]] = ("cond", "uncond")

    def sources(self) -> dict[str, str]:
        return {"uncond": "negative"}

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"cond": strength}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        """Both where a frame is guided, if coefficients come from comparing the two."""
        deltas = self.deltas(strength_F, weight_F)
        return guided_by_both(deltas) if self.needs_gram else required_by(deltas)


def required_by(deltas: dict[str, Rows], base: str = "uncond") -> frozenset[str]:
    """The branches with a non-zero coefficient in base + sum_b delta_b (p_b - base)."""
    coefficients = deltas | {base: 1 - sum(deltas.values())}
    return frozenset(branch for branch, values in coefficients.items() if np.any(values != 0))


def is_off(deltas: dict[str, Rows]) -> Bool[np.ndarray, "*B F"]:
    """Where the result is `cond` alone."""
    return np.logical_and.reduce([v == (1 if b == "cond" else 0) for b, v in deltas.items()])


def from_uncond(deltas: dict[str, Rows]) -> Combination:
    """uncond + sum_b delta_b (p_b - uncond), off where that is `cond` alone."""
    return Combination("uncond", None, deltas, is_off(deltas))


def from_cond(deltas: dict[str, Rows]) -> Combination:
    """cond + sum_b delta_b (p_b - cond), off where that is `cond` alone."""
    return Combination("cond", None, deltas, is_off(deltas))


def guided_by_both(deltas: dict[str, Rows]) -> frozenset[str]:
    """`cond` alone where all is off, else `cond` and `uncond`: for rules that compare the two."""
    return frozenset({"cond"} if is_off(deltas).all() else {"cond", "uncond"})


def ratio(above: Rows, below: Rows, otherwise: float) -> Rows:
    """above / below, and `otherwise` where `below` is not positive."""
    safe = np.where(below > 0, below, 1.0)
    return np.where(below > 0, above / safe, otherwise)


def away_from(branch: str, strength: Rows) -> dict[str, Rows]:
    """Deltas of p + s (cond - p) = cond + (1 - s) (p - cond), written from cond."""
    return {branch: 1 - strength}
