"""What a render will cost, exactly, before any model is loaded."""

from vidcfg.build.rule import build_rule
from vidcfg.config import Prompt, RenderConfig
from vidcfg.guidance.frame_map import CausalMap, FrameMap
from vidcfg.guidance.methods import Method
from vidcfg.guidance.plan import RunPlan, RunRow, plan_run
from vidcfg.guidance.surface import Surface

MINI_FRAME_MAP = CausalMap(4)
_SECOND_ORDER = ("heun",)


def render_surface(config: RenderConfig, frame_map: FrameMap = MINI_FRAME_MAP) -> Surface:
    """The surface of a render whose scale does not depend on the scheduler's sigmas or experts.

    Raises:
        ValueError: if it does, or if the settings do not fit the clip.
    """
    return build_rule(config.guidance).surface(
        num_steps=config.sampling.num_steps,
        num_frames=config.video.num_frames,
        frame_map=frame_map,
        fps=float(config.video.fps),
    )


def plan_render(
    config: RenderConfig, *, batch_size: int = 1, frame_map: FrameMap = MINI_FRAME_MAP
) -> RunPlan:
    """The model evaluations of a whole render, made `batch_size` videos at a time.

    Prompts run in order, and the seeds of a prompt follow each other.
    """
    rule = build_rule(config.guidance)
    surface = render_surface(config, frame_map)
    rows = [
        RunRow(
            method=rule.method,
            strength_KF=surface.strength_KF,
            weights_KF=surface.weights_KF,
            start=seed,
            texts=_texts(rule.method, prompt),
            rule=rule.group_key(),
        )
        for prompt in config.prompts
        for seed in config.seeds
    ]
    order = 2 if config.sampling.scheduler in _SECOND_ORDER else 1
    share = config.guidance.share
    plans = [
        plan_run(rows[i : i + batch_size], share=share, evaluations_per_step=order)
        for i in range(0, len(rows), batch_size)
    ]
    per_step = tuple(_add(steps) for steps in zip(*(plan.per_step for plan in plans)))
    return RunPlan(per_step, sum(plan.naive for plan in plans))


def _add(steps: tuple[dict[str, int], ...]) -> dict[str, int]:
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: sum(step.get(name, 0) for step in steps) for name in names}


def _texts(method: Method, prompt: Prompt) -> tuple[tuple[str, str], ...]:
    """What each branch of a method sees for one prompt."""
    seen = {"negative": prompt.negative, "empty": ""}
    sources = method.sources().items()
    return (("cond", prompt.text), *((b, seen.get(source, source)) for b, source in sources))
