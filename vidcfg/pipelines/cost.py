"""What a render will cost, exactly, before any model is loaded."""

from dataclasses import dataclass

import numpy as np

from vidcfg.guidance.frame_map import CausalMap, FrameMap
from vidcfg.guidance.plan import RunPlan, RunRow, plan_run, stacked
from vidcfg.guidance.rule import Method
from vidcfg.guidance.surface import Surface
from vidcfg.render.config import Prompt, RenderConfig

MINI_FRAME_MAP = CausalMap(4)
_SECOND_ORDER = ("heun",)


@dataclass(frozen=True, eq=False)
class KnownSteps:
    """What a scheduler tells of a run: noise level, model and model calls of each step."""

    sigmas_K: np.ndarray | None
    calls: tuple[int, ...]
    experts: tuple[str, ...] | None = None


def render_surface(
    config: RenderConfig, frame_map: FrameMap = MINI_FRAME_MAP, *, steps: KnownSteps | None = None
) -> Surface:
    """The surface of a render; `steps` for a scale over noise levels or by experts.

    Raises:
        ValueError: if it is missing there, or if the settings do not fit the clip.
    """
    return config.guidance.surface(**_run(config, frame_map, steps))


def render_surfaces(
    config: RenderConfig, frame_map: FrameMap = MINI_FRAME_MAP, *, steps: KnownSteps | None = None
) -> dict[str, Surface]:
    """The surface of every rule of a render by its name, in the order of `guidance.method`."""
    rule = config.guidance
    return dict(zip(rule.term_names(), rule.surfaces(**_run(config, frame_map, steps))))


def _run(config: RenderConfig, frame_map: FrameMap, steps: KnownSteps | None) -> dict:
    return {
        "num_steps": config.sampling.num_steps,
        "num_frames": config.video.num_frames,
        "frame_map": frame_map,
        "fps": float(config.video.fps),
        "sigmas": None if steps is None else steps.sigmas_K,
        "experts": None if steps is None else steps.experts,
    }


def plan_render(
    config: RenderConfig,
    *,
    batch_size: int = 1,
    frame_map: FrameMap = MINI_FRAME_MAP,
    steps: KnownSteps | None = None,
) -> RunPlan:
    """The model evaluations of a whole render, made `batch_size` videos at a time.

    Prompts run in order, and the seeds of a prompt follow each other.
    """
    rows = [
        render_row(config, prompt, seed, frame_map=frame_map, steps=steps)
        for prompt in config.prompts
        for seed in config.seeds
    ]
    calls = calls_of(config, steps)
    share = config.guidance.share
    plans = [
        plan_run(rows[i : i + batch_size], share=share, evaluations_per_step=calls)
        for i in range(0, len(rows), batch_size)
    ]
    per_step = tuple(_add(steps) for steps in zip(*(plan.per_step for plan in plans)))
    at_most = any(plan.is_upper_bound for plan in plans)
    return RunPlan(per_step, sum(plan.naive for plan in plans), at_most)


def render_row(
    config: RenderConfig,
    prompt: Prompt,
    seed: int,
    *,
    frame_map: FrameMap = MINI_FRAME_MAP,
    steps: KnownSteps | None = None,
) -> RunRow:
    """One video of a render as a row of a plan: its strengths, texts and start."""
    rule = config.guidance
    surfaces = rule.surfaces(**_run(config, frame_map, steps))
    return RunRow(
        method=rule.method,
        strength_KF=stacked([surface.strength_KF for surface in surfaces]),
        weights_KF=stacked([surface.weights_KF for surface in surfaces]),
        start=seed,
        texts=_texts(rule.method, prompt),
        rule=rule.group_key(),
        experts=None if steps is None else steps.experts,
    )


def calls_of(config: RenderConfig, steps: KnownSteps | None = None) -> int | tuple[int, ...]:
    """Model calls of each step of the scheduler."""
    if steps is not None:
        return steps.calls
    return 2 if config.sampling.scheduler in _SECOND_ORDER else 1


def _add(steps: tuple[dict[str, int], ...]) -> dict[str, int]:
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: sum(step.get(name, 0) for step in steps) for name in names}


def _texts(method: Method, prompt: Prompt) -> tuple[tuple[str, str], ...]:
    """What each branch of a method sees for one prompt."""
    seen = {"cond": prompt.text, "negative": prompt.negative, "empty": ""}
    sources = method.sources().items()
    return (("cond", prompt.text), *((b, seen.get(source, source)) for b, source in sources))
