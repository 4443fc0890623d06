"""A grid of 8 scales x 4 starts x 4 stops of one prompt and seed, 20 steps, against loops that
make one video after the other.

The loops are bare: the model, the formula of guidance and Euler's step, and no line of ours. One
takes two passes in every step, as pipelines do; the other leaves out the pass that counts nothing.
Together, cells share every evaluation until their settings part, so the ratio of evaluations is
what can be reached. Beside a bare loop, ours counts, traces and checks.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from harness import Row

from vidcfg.guidance.setting import Guidance
from vidcfg.pipelines.load import MiniModel, load_pipeline
from vidcfg.pipelines.schedulers import make_scheduler
from vidcfg.render.config import RenderConfig, units_of
from vidcfg.render.sampling import sample_units

NUM_STEPS, NUM_SCALES = 20, 8
PROMPT = "a red circle moving left over a navy background"
SIZE = {"num_frames": 17, "height": 32, "width": 32}


def rows() -> Iterator[Row]:
    schedules = grid(NUM_SCALES, NUM_STEPS)
    configs = [config_of(schedule) for schedule in schedules]
    pipe = loaded(configs[0])
    (unit,) = units_of(configs[0])
    loop = BareLoop(pipe)
    shared = trie_count(schedules)

    def together() -> list[np.ndarray]:
        batch = sample_units(configs, pipe, unit)
        trace = batch.trace
        assert trace.total == trace.planned.total == shared, (trace.total, shared)
        return [video.frames_THWC for video in batch.videos]

    for name, skips in (("two passes a step", False), ("skips what is off", True)):
        steps = [scale != 1.0 or not skips for schedule in schedules for scale in schedule]
        alone = len(steps) + sum(steps)

        def peer(skips: bool = skips) -> list[np.ndarray]:
            return [loop.video(schedule, skips=skips) for schedule in schedules]

        def check(peer: Any = peer) -> str:
            pairs = zip(together(), peer(), strict=True)
            differences = [np.abs(a.astype(int) - b) for a, b in pairs]
            assert max(d.max() for d in differences) <= 1, "frames differ"
            share = np.mean([(d > 0).mean() for d in differences])
            return f"{share:.0e} of the levels differ, by 1"

        note = f"evaluations {alone} : {shared} = {alone / shared:.2f}"
        goal = round(0.95 * alone / shared, 2)
        yield Row(f"{len(configs)} videos, {name}", peer, together, check, note, goal, rounds=1)


def loaded(config: RenderConfig) -> Any:
    """The mini model with the scheduler of a configuration."""
    pipe = load_pipeline(MiniModel(device="cpu"))
    pipe.scheduler = make_scheduler(pipe, config.sampling)
    return pipe


class BareLoop:
    """Sampling as a page of torch: texts and noise first, then one video at a time."""

    @torch.no_grad()
    def __init__(self, pipe: Any) -> None:
        self.model, self.codec, self.sigmas = pipe.transformer, pipe.vae, None
        sides = pipe.encode_prompt(PROMPT, "")
        self.texts = sides[:2], sides[2:]
        generator = torch.Generator().manual_seed(0)
        self.noise = pipe.prepare_latents(
            1, *SIZE.values(), device=torch.device("cpu"), generator=generator, latents=None
        )
        pipe.scheduler.set_timesteps(NUM_STEPS)
        self.times = pipe.scheduler.timesteps.tolist()
        self.sigmas = pipe.scheduler.sigmas.tolist()

    @torch.no_grad()
    def video(self, schedule: Sequence[float], *, skips: bool) -> np.ndarray:
        """uint8 frames [T, H, W, 3]."""
        latents = self.noise
        for k, scale in enumerate(schedule):
            velocity = self._velocity(latents, k, 0)
            if scale != 1.0 or not skips:
                uncond = self._velocity(latents, k, 1)
                velocity = uncond + scale * (velocity - uncond)
            latents = latents + (self.sigmas[k + 1] - self.sigmas[k]) * velocity
        video = self.codec.decode(latents).sample[0].permute(1, 2, 3, 0)
        return ((video + 1) / 2).clamp(0, 1).mul(255).round().byte().numpy()

    def _velocity(self, latents: torch.Tensor, step: int, side: int) -> torch.Tensor:
        embeds, mask = self.texts[side]
        time = torch.tensor([self.times[step]])
        return self.model(latents, time, embeds, mask, return_dict=False)[0]


def grid(num_scales: int, num_steps: int) -> list[tuple[float, ...]]:
    """Scales guided from a start to a stop, off elsewhere: starts 0 to 0.3, stops 0.4 to 1."""
    starts = [round(num_steps * share) for share in (0.0, 0.1, 0.2, 0.3)]
    stops = [round(num_steps * share) for share in (0.4, 0.6, 0.8, 1.0)]
    return [
        tuple(1.5 + scale if start <= k < stop else 1.0 for k in range(num_steps))
        for scale, start, stop in product(range(num_scales), starts, stops)
    ]


def trie_count(schedules: list[tuple[float, ...]]) -> int:
    """Evaluations of the tree of prefixes, counted without the planner."""
    total = 0
    for k in range(len(schedules[0])):
        pasts: dict[tuple, bool] = {}
        for schedule in schedules:
            pasts[schedule[:k]] = pasts.get(schedule[:k], False) or schedule[k] != 1.0
        total += sum(1 + is_guided for is_guided in pasts.values())
    return total


def config_of(schedule: tuple[float, ...]) -> RenderConfig:
    return RenderConfig(
        schema=1,
        name="bench",
        model={"kind": "mini", "device": "cpu"},
        prompts=PROMPT,
        seeds=0,
        video={**SIZE, "fps": 8},
        sampling={"num_steps": len(schedule), "scheduler": "flow_euler"},
        guidance=Guidance(scale=list(schedule)),
        output={"dir": "out", "video": "ffv1"},
    )
