"""What a guidance rule is to the rest of the engine."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram


@runtime_checkable
class Method(Protocol):
    """A rule: which branches it reads, and their coefficients.

    `name` is its kind in a config, `branches` its model evaluations (first `cond`), `needs_gram`
    whether its coefficients depend on the predictions themselves.
    """

    name: str
    branches: tuple[str, ...]
    needs_gram: bool

    def sources(self) -> dict[str, str]:
        """The text each branch but `cond` sees: "negative", "empty" or "condition:<name>"."""

    def required(self, strength_F: np.ndarray, weight_F: np.ndarray) -> frozenset[str]:
        """The branches of which a coefficient can be non-zero on a step with these values."""

    def combination(
        self,
        gram: Gram | None,
        *,
        strength_BF: Float[Tensor, "B F"],
        weight_BF: Float[Tensor, "B F"],
    ) -> Combination:
        """The coefficients of every frame; strength and weight are float64 on the CPU."""


def branches_with_weight(coefficients_F: dict[str, np.ndarray]) -> frozenset[str]:
    """The names of the coefficient vectors that are not zero everywhere."""
    return frozenset(branch for branch, values in coefficients_F.items() if np.any(values != 0))
