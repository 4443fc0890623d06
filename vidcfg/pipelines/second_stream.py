"""The second output of a denoiser (LTX-2's audio): guided by one scale of its own."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.rule import Method
from vidcfg.guidance.setting import Guidance

ROW = "vidcfg_row"
"""Name under which the number of its sample travels with every row of a model call."""


@dataclass(frozen=True)
class KeepsUncond:
    """A method whose unconditional branch runs on every step, for the second stream."""

    method: Method

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def required(self, strength_F: np.ndarray, weight_F: np.ndarray) -> frozenset[str]:
        return self.method.required(strength_F, weight_F) | {"cond", "uncond"}

    def steps(
        self, strength_KF: np.ndarray, weights_KF: np.ndarray, **run: Any
    ) -> tuple["KeepsUncond", ...]:
        return tuple(map(KeepsUncond, self.method.steps(strength_KF, weights_KF, **run)))


Method.register(KeepsUncond)


def keeping_uncond(rule: Guidance) -> Guidance:
    """`rule`, running cond and uncond on every step."""
    return rule.model_copy(update={"method": KeepsUncond(rule.method)})


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
