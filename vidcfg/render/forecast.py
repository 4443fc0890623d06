"""What a render will do and cost, exactly, before a weight is loaded: the run's own way to it."""

import copy
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

from vidcfg.guidance.plan import RunPlan, SampleRows, added_up, plan_run
from vidcfg.guidance.surface import Surface
from vidcfg.pipelines.steps import RunFacts
from vidcfg.render.config import Prompt, RenderConfig


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is known of a render.

    `pipe` is its pipeline without weights, `facts` are those of its runs; None where only the
    loaded model can tell, with the reason in `why_not`. A reason beside `facts` tells that noise
    levels and experts are not known, and that each step is taken to call the model as usual.
    """

    config: RenderConfig
    pipe: Any = None
    facts: RunFacts | None = None
    why_not: str = ""

    @property
    def family(self) -> Any:
        """The family of the pipeline, None where it is not known."""
        from vidcfg.pipelines.families import family_of

        return None if self.pipe is None else family_of(self.pipe)

    @property
    def surfaces(self) -> dict[str, Surface]:
        """The surface of every rule by its name, in the order of `guidance.method`.

        Raises:
            ValueError: if the settings do not fit the clip, or need what is not known.
        """
        rule, run = self.config.guidance, self.facts.of_surfaces()
        return dict(zip(rule.term_names(), (term.surface(**run) for term in rule.terms)))

    @property
    def by_expert(self) -> dict[str, "Forecast"]:
        """The same with each expert on every step, by its name, where experts alone are not known.

        Empty where there are none, or something follows noise levels.
        """
        config, alone = self.config, {}
        scale = config.guidance.scale
        for name, schedule in scale.items() if isinstance(scale, dict) else ():
            one = config.model_copy(update={"guidance": config.guidance.replace(scale=schedule)})
            if follows_levels(one.guidance):
                return {}
            alone[name] = replace(self, config=one)
        return alone

    @property
    def samples(self) -> SampleRows:
        """What one video needs on each step, as a batch of one."""
        surfaces = tuple(self.surfaces.values())
        return SampleRows.of([self.config.guidance], [surfaces], **self.facts.of_rows())

    def texts(self, prompt: Prompt) -> dict[str, Any]:
        """The text that each branch sees, `cond` with what changes it."""
        method = self.config.guidance.method
        changes = tuple(term.key for term in method.terms if term.changes_cond)
        seen = {"cond": (prompt.text, changes), "negative": prompt.negative, "empty": ""}
        sources = {"cond": "cond"} | method.sources()
        return {branch: seen.get(source, source) for branch, source in sources.items()}

    def plan(self) -> RunPlan:
        """The model evaluations of the whole render, made one video at a time."""
        # Videos of one prompt cost the same, whatever their seed.
        config, samples, seeds = self.config, self.samples, len(self.config.seeds)
        how = {"share": config.guidance.share, "evaluations_per_step": self.facts.calls}
        texts = map(self.texts, config.prompts)
        plans = [plan_run(samples, texts=[seen], **how) for seen in texts]
        steps = map(added_up, zip(*(plan.per_step for plan in plans)))
        per_step = tuple({branch: n * seeds for branch, n in step.items()} for step in steps)
        at_most = any(plan.is_upper_bound for plan in plans)
        return RunPlan(per_step, seeds * sum(plan.naive for plan in plans), at_most)


def follows_levels(guidance: Any) -> bool:
    """Whether some scale follows noise levels or experts."""
    scales = [term.scale for term in guidance.terms]
    return any(isinstance(scale, dict) or scale.over == "sigma" for scale in scales)


def forecast_of(config: RenderConfig) -> Forecast:
    """What is known of a render from its configuration and the small files of its model.

    Raises:
        ValueError: for a scheduler that cannot step this model.
    """
    if config.model.kind == "mini" and not follows_levels(config.guidance):
        # The embedded model needs no library to be known so far.
        return Forecast(config, facts=_facts(config, config.model.frame_map))
    from vidcfg.pipelines.families import family_of
    from vidcfg.pipelines.weightless import NotKnownError, weightless

    try:
        pipe = copy.copy(weightless(config.model))
    except NotKnownError as error:
        return Forecast(config, why_not=str(error))
    try:
        family = family_of(pipe)
        frame_map = family.frame_map(pipe)
    except (ValueError, AttributeError) as error:
        # No family, or a part that its frame map asks is not in the folder.
        reason = str(error).split(". ")[0]
        return Forecast(config, why_not=f"its files do not tell it: {reason}")
    return _stepped(config, pipe, family, frame_map)


def _stepped(config: RenderConfig, pipe: Any, family: Any, frame_map: Any) -> Forecast:
    """The forecast of a pipeline without weights, with the steps that its scheduler tells."""
    from vidcfg.pipelines.run import run_facts
    from vidcfg.pipelines.schedulers import make_scheduler, own_noise_levels
    from vidcfg.pipelines.steps import begin_of

    if pipe.scheduler is None:
        folder = config.model.folder
        why = "its scheduler is not on this machine"
        if folder is not None:
            why = f"{folder / 'scheduler'} names no scheduler of diffusers"
        return Forecast(config, pipe, _facts(config, frame_map), why)
    pipe.scheduler = make_scheduler(pipe, config.sampling)
    why = own_noise_levels(pipe)
    if why is not None:
        why = f"the noise levels are found while it runs: {why}"
        return Forecast(config, pipe, _facts(config, frame_map), why)
    pipe.scheduler.set_timesteps(config.sampling.num_steps)
    call = {name: p.default for name, p in signature(type(pipe).__call__).parameters.items()}
    run = {"num_frames": config.video.num_frames, "fps": config.video.fps}
    facts = run_facts(pipe, family, call, **run, begin=begin_of(pipe, call))
    return Forecast(config, pipe, facts)


def _facts(config: RenderConfig, frame_map: Any) -> RunFacts:
    """A run whose steps are not known but by the name of the solver."""
    video = config.video
    return RunFacts(
        num_frames=video.num_frames,
        frame_map=frame_map,
        fps=float(video.fps),
        calls=config.sampling.usual_calls,
    )
