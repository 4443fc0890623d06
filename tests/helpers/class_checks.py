"""How far a guided pipeline is from the stock pipeline: at one scale, and under a random surface.

The surface is run by the stock pipeline itself, which is handed a scale that differs by frame and
step: no line of the engine is in that loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from tiny_base import TinyPipeline, generators

import vidcfg
from vidcfg.pipelines.families import family_of

FRAMES = {"kind": "knots", "points": [[0.0, 0.3], [0.4, 1.0], [1.0, 0.0]]}
SCALES = [3.5, 0.4]
"""One for each step that runs."""


class FrameScale(float):
    """A guidance scale as the stock pipelines use one: `scale * (cond - uncond)`, once a step.

    `row_of` gives the values of its n-th use, `layout` the axes of what it is multiplied with. As
    a number it is above 1, so that the pipeline runs its unconditional pass.
    """

    def __new__(cls, row_of, layout, used=None):
        made = super().__new__(cls, 9.9)
        made.row_of, made.layout = row_of, layout
        made.used = [] if used is None else used
        return made

    def __sub__(self, number):
        return FrameScale(lambda n: self.row_of(n) - number, self.layout, self.used)

    def __mul__(self, difference):
        row_F = torch.tensor(self.row_of(len(self.used)), dtype=difference.dtype)
        self.used.append(1)
        if self.layout == "tokens":
            row = row_F.repeat_interleave(difference.shape[1] // len(row_F))[:, None]
        else:
            shape = [1] * 5
            shape[self.layout.index("F")] = len(row_F)
            row = row_F.reshape(shape)
        return row * difference


@dataclass(frozen=True)
class TinyClass:
    """A pipeline class to check.

    Args:
        tiny: what a call needs.
        layout: axes of the model's prediction.
        pixels: pixel frames that each latent frame makes.
        one_generator: for classes that take no list of generators.
        begin: steps of the schedule that do not run, before those that do.
        parts: strengths of the latents of each loop, one after the other, for a video that is made
            in several; from a function (pixel frames, frame map) -> strength_KF.
    """

    tiny: TinyPipeline
    layout: str
    pixels: tuple[int, ...]
    one_generator: bool = False
    begin: int = 0
    parts: Callable[[Callable[..., np.ndarray]], list[np.ndarray]] | None = None

    @property
    def seeds(self):
        """Fresh generators of a call; I2VGen-XL draws from the global one too."""
        torch.manual_seed(0)
        return generators(0)[0] if self.one_generator else generators(0, 1)


def difference(ours: torch.Tensor, stock: torch.Tensor) -> float:
    """The largest absolute difference over the largest value; 0.0 where they are equal."""
    if isinstance(ours, list):  # FramePack: the latents after each section
        ours, stock = ours[-1], stock[-1]
    assert ours.shape == stock.shape
    assert torch.isfinite(stock).all()
    return float((ours - stock).abs().max() / stock.abs().max())


def uniform(case: TinyClass, scale: float = 4.3, **settings) -> float:
    """Difference from the stock pipeline at one scale for all frames and steps."""
    tiny = case.tiny
    stock = tiny.stock(scale, generator=case.seeds)
    guidance = vidcfg.Guidance(scale=scale, **settings)
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        ours = tiny.unguided(generator=case.seeds)
    assert trace.evaluations == trace.planned.evaluations
    return difference(ours, stock)


def surface(case: TinyClass) -> float:
    """Difference from the stock pipeline whose scale differs by frame and step."""
    tiny = case.tiny
    if family_of(tiny.pipe).frame_levels is not None:
        return _surface_by_frame(case)
    # A step that does not run has a scale that would be seen.
    scales = [90.0] * case.begin + SCALES
    # Rows alone, but where the blocks of a pipeline call the model.
    alone = None if family_of(tiny.pipe).guiders else 1
    guidance = vidcfg.Guidance(scale=scales, frames=FRAMES, passes="sequential", micro_batch=alone)
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        ours = tiny.unguided(generator=case.seeds)
    assert trace.evaluations == trace.planned.evaluations
    strength_KF = trace.surfaces[0].strength_KF[case.begin :]
    assert strength_KF.shape == (len(SCALES), len(case.pixels)), strength_KF.shape
    assert len(np.unique(strength_KF)) > len(SCALES)
    if case.parts is not None:
        run = partial(guidance.terms[0].surface, num_steps=len(SCALES))
        parts = case.parts(lambda n, shown: run(num_frames=n, frame_map=shown).strength_KF)
        np.testing.assert_allclose(strength_KF, parts[-1])  # those of the last loop
        strength_KF = np.concatenate(parts)
    scale = FrameScale(lambda n: strength_KF[n], case.layout)
    stock = tiny.stock(scale, generator=case.seeds)
    assert len(scale.used) == len(strength_KF)
    return difference(ours, stock)


def _surface_by_frame(case: TinyClass) -> float:
    """As `surface`, where every frame has a noise level of its own.

    The stock pipeline gets, for each frame, the strength of the step that has its timestep.
    """
    tiny, scales = case.tiny, [3.5, 0.4, 2.2]
    pipe, denoiser, seen = tiny.pipe, tiny.denoiser, []
    guidance = vidcfg.Guidance(scale=scales, frames=FRAMES, passes="sequential", micro_batch=1)
    with vidcfg.guide(pipe, guidance, **tiny.negative) as trace:
        ours = tiny.unguided(generator=case.seeds)
    assert trace.evaluations == trace.planned.evaluations
    shape = {"num_steps": len(scales), "num_frames": tiny.shape["num_frames"]}
    video = family_of(pipe).frame_map(pipe)
    strength_KF = guidance.terms[0].surface(**shape, frame_map=video).strength_KF

    def row_of(n):
        steps = pipe.scheduler.timesteps.tolist()
        # A frame that is not denoised may have any strength.
        rows = [steps.index(t) if t in steps else None for t in seen[-1][0].tolist()]
        places = [min(f, strength_KF.shape[1] - 1) for f in range(len(rows))]
        return np.array([77.0 if k is None else strength_KF[k, f] for k, f in zip(rows, places)])

    watch = denoiser.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["timestep"]), with_kwargs=True
    )
    stock = tiny.stock(FrameScale(row_of, case.layout), generator=case.seeds)
    watch.remove()
    return difference(ours, stock)
