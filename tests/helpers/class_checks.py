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
from vidcfg.pipelines.comparison import Comparison, FrameScale, difference, frame_axis
from vidcfg.pipelines.families import family_of

FRAMES = {"kind": "knots", "points": [[0.0, 0.3], [0.4, 1.0], [1.0, 0.0]]}
SCALES = [3.5, 0.4]
"""One for each step that runs."""


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

    @property
    def sides(self) -> Comparison:
        """The stock pipeline and ours, from the same noise."""
        tiny = self.tiny
        return Comparison(
            tiny.pipe,
            lambda scale: tiny.stock(scale, generator=self.seeds),
            lambda **more: tiny.unguided(generator=self.seeds, **more),
            tiny.negative,
        )


def uniform(case: TinyClass, scale: float = 4.3, **settings) -> float:
    """Difference from the stock pipeline at one scale for all frames and steps."""
    stock = case.sides.stock(scale)
    ours, trace, _ = case.sides.guided(vidcfg.Guidance(scale=scale, **settings))
    assert trace.evaluations == trace.planned.evaluations
    return difference(ours, stock)


def surface(case: TinyClass) -> float:
    """Difference from the stock pipeline whose scale differs by frame and step."""
    if family_of(case.tiny.pipe).frame_levels is not None:
        return _surface_by_frame(case)
    # A step that does not run has a scale that would be seen.
    scales = [90.0] * case.begin + SCALES
    # Rows alone, but where the blocks of a pipeline call the model.
    alone = None if family_of(case.tiny.pipe).guiders else 1
    guidance = vidcfg.Guidance(scale=scales, frames=FRAMES, passes="sequential", micro_batch=alone)
    ours, trace, _ = case.sides.guided(guidance)
    assert trace.evaluations == trace.planned.evaluations
    strength_KF = trace.surfaces[0].strength_KF[case.begin :]
    assert strength_KF.shape == (len(SCALES), len(case.pixels)), strength_KF.shape
    assert len(np.unique(strength_KF)) > len(SCALES)
    if case.parts is not None:
        run = partial(guidance.terms[0].surface, num_steps=len(SCALES))
        parts = case.parts(lambda n, shown: run(num_frames=n, frame_map=shown).strength_KF)
        np.testing.assert_allclose(strength_KF, parts[-1])  # those of the last loop
        strength_KF = np.concatenate(parts)
    scale = FrameScale(lambda n: strength_KF[n], frame_axis(case.layout))
    stock = case.sides.stock(scale)
    assert len(scale.used) == len(strength_KF)
    return difference(ours, stock)


def _surface_by_frame(case: TinyClass) -> float:
    """As `surface`, where every frame has a noise level of its own.

    The stock pipeline gets, for each frame, the strength of the step that has its timestep.
    """
    tiny, scales = case.tiny, [3.5, 0.4, 2.2]
    pipe, denoiser, seen = tiny.pipe, tiny.denoiser, []
    guidance = vidcfg.Guidance(scale=scales, frames=FRAMES, passes="sequential", micro_batch=1)
    ours, trace, _ = case.sides.guided(guidance)
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
    stock = case.sides.stock(FrameScale(row_of, frame_axis(case.layout)))
    watch.remove()
    return difference(ours, stock)
