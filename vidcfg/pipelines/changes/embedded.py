"""The scale that a guidance-distilled model takes as an input, per sample, step and branch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.plan import SampleRows
from vidcfg.guidance.rules.embedded import Embedded, scale_at
from vidcfg.pipelines.arguments import tensor_at
from vidcfg.pipelines.families import Family


def embedded_terms(samples: SampleRows) -> tuple[int | None, ...]:
    """For every sample the place of its `embedded` term, None where it has none."""
    found = []
    for rule in samples.rules:
        places = [i for i, t in enumerate(rule.method.terms) if isinstance(t, Embedded)]
        if len(places) > 1:
            raise ValueError("guidance.method holds `embedded` twice. Give one scale schedule.")
        found.append(places[0] if places else None)
    return tuple(found)


def check_embedded(family: Family, module: Any, arguments: Mapping[str, Any]) -> None:
    """Raise a ValueError for a model that takes no scale as an input."""
    if family.embedded is None or tensor_at(arguments, family.embedded[0]) is None:
        raise ValueError(
            f"this {type(module).__name__} takes no guidance scale as an input (it is not "
            f"guidance-distilled). Use guidance.method: cfg."
        )


def embedded_scales(
    samples: SampleRows, terms: tuple[int | None, ...], step: int, branch: str
) -> list[float | None]:
    """The scale that each sample's model input holds in a branch; None: the pipeline's own."""
    scales: list[float | None] = []
    for b, term in enumerate(terms):
        if term is None:
            scales.append(None)
            continue
        strength, weight = (
            np.atleast_2d(rows[b][step])[term]
            for rows in (samples.strength_BKF, samples.weights_BKF)
        )
        scales.append(scale_at(strength, weight) if branch == "embedded" else 1.0)
    return scales


def with_scales(own: Tensor, scales: list[float | None], factor: float) -> Tensor:
    """The model's scale input with the given scales in place, as the pipelines compute it."""
    rows = own.clone()
    for b, scale in enumerate(scales):
        if scale is not None:
            rows[b] = torch.tensor(scale, dtype=own.dtype, device=own.device) * factor
    return rows
