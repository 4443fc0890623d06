"""The second output of a denoiser (LTX-2's audio): guided by one scale of its own."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.methods import Method
from vidcfg.guidance.rule import Rule

ROW = "vidcfg_row"
"""Name under which the number of its sample travels with every row of a model call."""


@dataclass(frozen=True)
class KeepsUncond:
    """A method whose unconditional branch runs on every step, for the second stream."""

    method: Method

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def branches(self) -> tuple[str, ...]:
        return self.method.branches

    @property
    def base(self) -> str:
        return self.method.base

    @property
    def needs_gram(self) -> bool:
        return self.method.needs_gram

    def deltas(self, strength: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
        return self.method.deltas(strength, weight)

    def required(self, strength_F: np.ndarray, weight_F: np.ndarray) -> frozenset[str]:
        return self.method.required(strength_F, weight_F) | {"cond", "uncond"}

    def sources(self) -> dict[str, str]:
        return self.method.sources()

    def combination(self, gram, *, strength_BF, weight_BF):
        return self.method.combination(gram, strength_BF=strength_BF, weight_BF=weight_BF)


def keeping_uncond(rule: Rule) -> Rule:
    """`rule`, running cond and uncond on every step."""
    return replace(rule, method=KeepsUncond(rule.method))


@dataclass
class SecondOutputs:
    """The second outputs of one step, by branch and sample, and their guided combination."""

    scale: float
    rows: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def keep(self, output: Tensor, branches: tuple[str, ...], samples: Tensor) -> None:
        """Note the rows of one model call."""
        for branch, sample, row in zip(branches, samples.tolist(), output.split(1)):
            self.rows[branch, sample] = row

    def guided(self, num_samples: int) -> Tensor:
        """uncond + scale * (cond - uncond) in float32; cond alone where the scale is 1."""
        cond = torch.cat([self.rows["cond", b] for b in range(num_samples)]).float()
        if self.scale == 1:
            return cond
        uncond = torch.cat([self.rows["uncond", b] for b in range(num_samples)]).float()
        return uncond + self.scale * (cond - uncond)
