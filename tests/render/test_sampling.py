"""Videos that are made together: to the bits of videos made alone, with the fewest evaluations."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vidcfg.guidance.setting import Guidance
from vidcfg.pipelines.schedulers import make_scheduler
from vidcfg.render.config import RenderConfig, Unit
from vidcfg.render.sampling import sample_units

SCHEDULERS = ("flow_euler", "unipc", "dpm++", "heun")


@pytest.fixture
def pipe(tiny_pipeline):
    torch.set_num_threads(1)
    return tiny_pipeline


def render(guidance, *, num_steps=4, scheduler="flow_euler", negative="blurry") -> RenderConfig:
    return RenderConfig(
        schema=1,
        name="tiny",
        model={"kind": "mini", "device": "cpu"},
        prompts=[
            {"text": "a red circle moving left over a navy background", "negative": negative}
        ],
        seeds=5,
        video={"num_frames": 9, "height": 8, "width": 12, "fps": 8},
        sampling={"num_steps": num_steps, "scheduler": scheduler},
        guidance=guidance,
        output={"dir": "out", "video": "ffv1"},
    )


def together(pipe, configs):
    """The videos of all configurations in one run."""
    own = pipe.scheduler
    pipe.scheduler = make_scheduler(pipe, configs[0].sampling)
    try:
        unit = Unit(configs[0].prompts[0], configs[0].seeds[0], Path("x"), ".mkv")
        return sample_units(configs, pipe, unit)
    finally:
        pipe.scheduler = own


def alone(pipe, config):
    """The video as `vidcfg render` makes it."""
    return together(pipe, [config]).videos[0]


SETTINGS = [
    {"scale": 1.0},
    {"scale": 1.0, "frames": {"kind": "decay", "end": 0.2}},
    {"scale": 4.0},
    {"scale": 4.0, "frames": {"kind": "ramp", "first": 0.0, "last": 1.0}, "rescale": 0.5},
    {"scale": {"kind": "interval", "value": 4.0, "from": 0.0, "to": 0.5}},
    {"method": {"kind": "apg", "momentum": -0.5}, "scale": 5.0},
]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_videos_made_together_are_those_made_alone(pipe, scheduler):
    """Also with the history of multistep solvers and the momentum of APG."""
    configs = [render(Guidance(**one), scheduler=scheduler) for one in SETTINGS]
    batch = together(pipe, configs)
    singles = [alone(pipe, config) for config in configs]
    for video, single in zip(batch.videos, singles, strict=True):
        assert np.array_equal(video.frames_THWC, single.frames_THWC)
    assert not np.array_equal(singles[2].frames_THWC, singles[3].frames_THWC)
    assert batch.trace.total < sum(single.trace.total for single in singles)


def test_each_video_has_the_trace_of_its_own_strengths(pipe):
    configs = [render(Guidance(**one)) for one in SETTINGS]
    for video, config in zip(together(pipe, configs).videos, configs, strict=True):
        single = alone(pipe, config)
        for mine, own in zip(video.trace.steps, single.trace.steps, strict=True):
            assert np.array_equal(mine.strength_BF, own.strength_BF)
            assert np.allclose(mine.std_guided_BF, own.std_guided_BF, rtol=1e-6)


def interval(scale: float, start: int, stop: int, num_steps: int) -> dict:
    values = [scale if start <= k < stop else 1.0 for k in range(num_steps)]
    return {"scale": {"kind": "list", "values": values}}


def trie_count(schedules: list[tuple[float, ...]]) -> int:
    """Evaluations by walking the tree of prefixes: one node for each different past, one branch
    more where something below it is guided on this step."""
    total = 0
    for k in range(len(schedules[0])):
        pasts: dict[tuple, bool] = {}
        for schedule in schedules:
            past = schedule[:k]
            pasts[past] = pasts.get(past, False) or schedule[k] != 1.0
        total += sum(1 + is_guided for is_guided in pasts.values())
    return total


def grid(num_steps: int, starts: tuple, stops: tuple, num_scales: int) -> list[tuple]:
    return [
        tuple(2.0 + scale if start <= k < stop else 1.0 for k in range(num_steps))
        for scale in range(num_scales)
        for start in starts
        for stop in stops
    ]


def test_a_grid_of_intervals_takes_the_evaluations_of_its_tree(pipe):
    """4 x 3 x 3 cells: executed = counted by hand, and every video that of a run alone.

    The published 8 x 4 x 4 cells of 50 steps, 4,500 evaluations: tests/guidance/test_plan.py.
    """
    from vidcfg.guidance.plan import SampleRows, plan_run
    from vidcfg.render.forecast import forecast_of

    assert trie_count(grid(50, (0, 5, 10, 15), (20, 30, 40, 50), 8)) == 4500
    num_steps = 7
    schedules = grid(num_steps, (0, 1, 2), (3, 5, 7), 4)
    configs = [render(Guidance(scale=list(v)), num_steps=num_steps) for v in schedules]
    foreseen = plan_run(SampleRows.joined([forecast_of(c).samples for c in configs]))
    assert foreseen.naive == 2 * num_steps * len(configs)
    batch = together(pipe, configs)
    run = batch.trace
    assert run.total == run.planned.total == foreseen.total == trie_count(schedules)
    assert len({video.frames_THWC.tobytes() for video in batch.videos}) == len(configs)
    for index in range(0, len(configs), 11):
        single = alone(pipe, configs[index])
        assert np.array_equal(batch.videos[index].frames_THWC, single.frames_THWC)
