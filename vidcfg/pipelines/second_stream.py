"""The second output of a denoiser (LTX-2's audio): guided by one scale of its own."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

ALWAYS = frozenset({"cond", "uncond"})
"""The branches that run on every step, as the second output is guided by a scale of its own."""
ROW = "vidcfg_row"
"""Name under which the number of its sample travels with every row of a model call."""


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
