"""The scale that a guidance-distilled model takes as an input, per sample, step and branch."""

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.rules.embedded import Embedded, scale_at
from vidcfg.pipelines.changes.base import Asked, ModelChange, RunStart, changes_model


@changes_model(Embedded)
class EmbeddedScale(ModelChange):
    """Fills the scale input of every branch; samples of other rules keep the pipeline's own."""

    def __init__(self, start: RunStart, asked: tuple[Asked, ...]):
        super().__init__(start, asked)
        self.places = {each.sample: each.place for each in asked}
        if len(self.places) < len(asked):
            raise ValueError("guidance.method holds `embedded` twice. Give one scale schedule.")
        name = (start.family.embedded or (None,))[0]
        if not isinstance(start.arguments.get(name), Tensor):
            raise ValueError(
                f"this {type(start.module).__name__} takes no guidance scale as an input (it is "
                f"not guidance-distilled). Use guidance.method: cfg."
            )

    def inputs(self, branch: str, step: int) -> dict[str, Tensor]:
        name, factor = self.start.family.embedded
        own = self.start.arguments[name]
        scales: list[float | None] = [None] * len(self.start.samples.rules)
        for sample, place in self.places.items():
            rows = (self.start.samples.strength_BKF, self.start.samples.weights_BKF)
            values = (np.atleast_2d(each[sample][step])[place] for each in rows)
            scales[sample] = scale_at(*values) if branch == "embedded" else 1.0
        return {name: with_scales(own, scales, factor)}


def with_scales(own: Tensor, scales: list[float | None], factor: float) -> Tensor:
    """The model's scale input with the given scales in place, as the pipelines compute it."""
    rows = own.clone()
    for b, scale in enumerate(scales):
        if scale is not None:
            rows[b] = torch.tensor(scale, dtype=own.dtype, device=own.device) * factor
    return rows
