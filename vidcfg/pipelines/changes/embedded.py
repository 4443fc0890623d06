"""The scale that a guidance-distilled model takes as an input, per sample, step and branch."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.rules.embedded import Embedded, scale_at
from vidcfg.pipelines.changes.base import ModelChange


class EmbeddedScale(ModelChange, setting=Embedded):
    """Fills the scale input of every branch; samples of other rules keep the pipeline's own."""

    def begin(self) -> None:
        self.places = {each.sample: each.place for each in self.asked}
        if len(self.places) < len(self.asked):
            raise ValueError("guidance.method holds `embedded` twice. Give one scale schedule.")
        name, _ = self.start.family.embedded or (None, None)
        if not isinstance(self.start.arguments.get(name), Tensor):
            raise ValueError(
                f"this {type(self.start.module).__name__} takes no guidance scale as an input (it "
                f"is not guidance-distilled). Use guidance.method: cfg."
            )

    def inputs(self, branch: str, step: int) -> dict[str, Tensor]:
        name, factor = self.start.family.embedded
        own = self.start.arguments[name]
        samples, scales = self.start.samples, {}
        for b, place in self.places.items():
            rows = (samples.strength_BKF[b][step], samples.weights_BKF[b][step])
            values = (np.atleast_2d(row)[place] for row in rows)
            scales[b] = scale_at(*values) if branch == "embedded" else 1.0
        return {name: with_scales(own, scales, factor)}


def with_scales(own: Tensor, scales: Mapping[int, float], factor: float) -> Tensor:
    """The model's scale input with those of some samples in place, as the pipelines compute it."""
    rows = own.clone()
    for sample, scale in scales.items():
        rows[sample] = torch.tensor(scale, dtype=own.dtype, device=own.device) * factor
    return rows
