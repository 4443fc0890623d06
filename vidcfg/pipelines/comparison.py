"""A pipeline beside itself: with its own guidance, and guided by vidcfg, from the same noise.

The stock pipeline's own loop is the oracle of a surface: it is handed a scale that differs by
frame and step, and no line of the engine is in it.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.trace import Trace
from vidcfg.pipelines.arguments import by_name
from vidcfg.pipelines.families import family_of
from vidcfg.pipelines.guide import guide


class FrameScale(float):
    """A guidance scale as the stock pipelines use one: `scale * (cond - uncond)`, once a step.

    `row_of` gives the strengths [F] of its n-th use, `axis` is where frames lie in what it is
    multiplied with. As a number it is above 1, so that the pipeline runs its unconditional pass.
    """

    def __new__(cls, row_of, axis, used=None):
        made = super().__new__(cls, 9.9)
        made.row_of, made.axis = row_of, axis
        made.used = [] if used is None else used
        return made

    def __sub__(self, number):
        return FrameScale(lambda n: self.row_of(n) - number, self.axis, self.used)

    def __mul__(self, difference):
        row_F = torch.tensor(self.row_of(len(self.used))).to(difference)
        self.used.append(1)
        shape = [1] * difference.ndim
        shape[self.axis] = -1  # several tokens a frame
        row = row_F.repeat_interleave(difference.shape[self.axis] // len(row_F))
        return row.reshape(shape) * difference


def frame_axis(layout: str) -> int:
    """The axis of frames, outermost among tokens; that of samples for an image."""
    return {"tokens": 1, "BCHW": 0}.get(layout, layout.find("F"))


def difference(ours: Any, stock: Any) -> float:
    """The largest absolute difference over the largest value; 0.0 where they are equal.

    Raises:
        ValueError: if their shapes differ, or the stock result is not finite.
    """
    if isinstance(ours, list):  # FramePack: the latents after each section
        ours, stock = ours[-1], stock[-1]
    ours, stock = torch.as_tensor(ours), torch.as_tensor(stock)
    if ours.shape != stock.shape or not torch.isfinite(stock).all():
        raise ValueError(f"{list(ours.shape)} cannot be compared with {list(stock.shape)}.")
    return float((ours - stock).abs().max() / stock.abs().max())


@dataclass(frozen=True)
class Comparison:
    """A pipeline by itself and guided by vidcfg, from the same noise.

    Args:
        pipe: the pipeline.
        stock: scale -> what it makes with its own guidance at that scale.
        unguided: further arguments of the call -> what it makes with its own guidance off.
        negative: the negative side, as `vidcfg.guide` takes it.
    """

    pipe: Any
    stock: Callable[[float], Any]
    unguided: Callable[..., Any]
    negative: Mapping[str, Any]

    def guided(self, guidance: Guidance) -> tuple[Any, Trace, list[np.ndarray]]:
        """What ours makes, its trace, and the strengths [F] of each call of the denoiser."""
        rows, family = [], family_of(self.pipe)
        models = () if family.guiders else family.models_of(self.pipe).values()
        with guide(self.pipe, guidance, **self.negative) as trace, ExitStack() as hooks:

            def keep(*_):
                rows.append(trace.steps[-1].strength_BF[0])

            for module in models:
                hooks.enter_context(module.register_forward_hook(keep))
            made = self.unguided()
        return made, trace, rows or [step.strength_BF[0] for step in trace.steps]

    def first_calls(self, run: Callable[[], Any], count: int) -> list[dict[str, Any]]:
        """The arguments of the first `count` denoiser calls of a run, which ends there."""
        family, found, control = family_of(self.pipe), [], {}
        models = list(family.models_of(self.pipe).values())
        beside = [getattr(self.pipe, family.control)] if family.control else []

        def see(module, args, kwargs):
            arguments = by_name(module, args, kwargs)
            if module in beside:
                control[family.control] = arguments
                return
            if control:  # its residuals are made anew in every branch
                for name in ("down_block_additional_residuals", "mid_block_additional_residual"):
                    arguments.pop(name, None)
            found.append(arguments | control)
            if len(found) == count:
                raise _EnoughSeen

        with ExitStack() as hooks, suppress(_EnoughSeen):
            for module in [*models, *beside]:
                hooks.enter_context(module.register_forward_pre_hook(see, with_kwargs=True))
            run()
        return found


class _EnoughSeen(Exception):
    pass
