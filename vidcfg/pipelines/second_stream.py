"""Guidance of a further output of the denoiser, such as the sound of a video."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vidcfg.guidance.plan import SampleRows
from vidcfg.guidance.surface import Surface
from vidcfg.pipelines.family import SecondStream


class GuidedSecondStream:
    """The second output of one run: kept row by row, and combined once a step.

    Its texts have a scale of their own. The rules that change the model act on it as they do on
    the first one, each at its own scale on that step and without frame weights; so does rescale.
    """

    def __init__(
        self,
        stream: SecondStream,
        call: Mapping[str, Any],
        samples: SampleRows,
        surfaces: list[tuple[Surface, ...]],
    ):
        self.stream, self.scale = stream, stream.scale_of(call)
        self.rescales = [rule.rescale for rule in samples.rules]
        self.scales = [
            [(b, s.scale_K) for term, s in zip(rule.method.terms, terms) for b in term.isolated]
            for rule, terms in zip(samples.rules, surfaces)
        ]
        self.rows: dict[tuple[str, int], Tensor] = {}

    def keep(self, branches: tuple[str, ...], samples: tuple[int, ...], outputs: Any) -> None:
        """Note what a call of the denoiser returned for these rows."""
        if len(outputs) > 1:
            found = outputs[self.stream.output].float().split(1)
            self.rows.update(zip(zip(branches, samples), found))

    def guided(self, arguments: Mapping[str, Any], step: int, sigma: float) -> Tensor:
        """The guided rows of a step, float32 [B, ...]; what was kept is forgotten."""
        noisy = arguments[self.stream.noisy].float()
        made = [self._guided(b, noisy[b : b + 1], step, sigma) for b in range(len(noisy))]
        self.rows.clear()
        return torch.cat(made)

    def _guided(self, sample: int, noisy: Tensor, step: int, sigma: float) -> Tensor:
        cond = self.rows["cond", sample]
        weights = [("uncond", self.scale), *((b, s[step]) for b, s in self.scales[sample])]
        guided = cond
        for branch, scale in weights:
            # A branch that no frame of the video needs is not run for the sound.
            if scale != 1 and (branch, sample) in self.rows:
                guided = guided + (float(scale) - 1) * (cond - self.rows[branch, sample])
        rescale = self.rescales[sample]
        if guided is cond or rescale.is_off:
            return guided
        # The spread of cond over the whole row, for flow predictions.
        is_x0 = rescale.space == "x0"
        wide, plain = ((noisy - sigma * v) if is_x0 else v for v in (guided, cond))
        rescaled = (rescale.amount * plain.std() / wide.std() + 1 - rescale.amount) * wide
        return (noisy - rescaled) / sigma if is_x0 else rescaled
