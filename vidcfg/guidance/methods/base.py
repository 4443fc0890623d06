"""What a guidance rule is to the rest of the engine."""

from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram

Rows = Float64[np.ndarray, "*B F"]


@runtime_checkable
class Method(Protocol):
    """A rule: which branches it reads, and their coefficients.

    `name` is its kind in a config, `branches` its model evaluations (first `cond`), `base` the
    branch that combinations are written from, `needs_gram` whether its coefficients depend on the
    predictions themselves.
    """

    name: ClassVar[str]
    branches: tuple[str, ...]
    base: ClassVar[str]
    needs_gram: ClassVar[bool]

    def sources(self) -> dict[str, str]:
        """The text each branch but `cond` sees: "negative", "empty" or "condition:<name>"."""

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        """How far each branch moves the result, before anything that depends on predictions.

        All that the strengths and weights of a step decide: two samples with equal predictions and
        equal deltas get equal results.
        """

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        """The branches of which a coefficient can be non-zero on a step with these values."""

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float64[np.ndarray, "B F"],
        weight_BF: Float64[np.ndarray, "B F"],
    ) -> Combination:
        """The coefficients of every frame."""


def required_by(deltas: dict[str, Rows]) -> frozenset[str]:
    """The branches with a non-zero coefficient in uncond + sum_b delta_b (p_b - uncond)."""
    coefficients = deltas | {"uncond": 1 - sum(deltas.values())}
    return frozenset(branch for branch, values in coefficients.items() if np.any(values != 0))


def is_off(deltas: dict[str, Rows]) -> np.ndarray:
    """Where the result is `cond` alone."""
    others = [values == 0 for branch, values in deltas.items() if branch != "cond"]
    return np.logical_and.reduce([deltas["cond"] == 1, *others])


def from_uncond(deltas: dict[str, Rows]) -> Combination:
    """uncond + sum_b delta_b (p_b - uncond), off where that is `cond` alone."""
    return Combination("uncond", None, deltas, is_off(deltas))
