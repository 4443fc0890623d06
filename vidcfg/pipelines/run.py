"""One call of a pipeline under guidance: what it keeps, and its denoiser calls made guided."""

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.passes import Passes, PassTimer, StepInputs, same_rows
from vidcfg.guidance.plan import Memory, SampleRows, plan_run
from vidcfg.guidance.step import GuidedDenoiser
from vidcfg.guidance.surface import EVENED
from vidcfg.pipelines.arguments import inputs_of, with_rows
from vidcfg.pipelines.caches import RunCaches, check_cache
from vidcfg.pipelines.changes import Changes
from vidcfg.pipelines.changes.base import RunStart, StepCall, first
from vidcfg.pipelines.schedulers import prediction_kind
from vidcfg.pipelines.second_stream import GuidedSecondStream
from vidcfg.pipelines.steps import (
    FramePlace,
    RunFacts,
    RunPlace,
    solver_levels,
    step_of_call,
    steps_of,
)
from vidcfg.pipelines.texts import rows_per_prompt

ROW = "vidcfg_row"
"""Name under which the number of its sample travels with every row of a model call."""


class GuidedRun:
    """The state of one pipeline call, from the first call of its denoiser on.

    Raises:
        ValueError: if settings, texts or the state of the pipeline do not fit the run.
    """

    def __init__(self, session: Any, module: Any, arguments: Mapping[str, Any]):
        pipe, family, call = session.pipe, session.family, session.call
        self.pipe, self.family, self.memory = pipe, family, Memory()
        self.session = session
        if family.frame_levels is None:
            self.place = RunPlace(pipe, family, arguments)
        else:
            self.place = FramePlace(family, session.frame_table, arguments)
        shared, cond = inputs_of(family, arguments)
        hidden = arguments[family.hidden]
        layout, how = family.frame_layout, session.rules[0]
        passes = Passes(how.passes, family.stock_passes, how.micro_batch, how.share)
        latent_frames = family.latent_frames or (lambda given: layout.num_frames(hidden))
        self.num_frames = latent_frames(arguments)
        self.returns_tensor = "return_dict" not in _parameters(module)

        # The rule of every sample, and its surfaces.
        places = _setting_of_sample(len(session.rules), hidden.shape[0], call)
        rules = [session.rules[place] for place in places]
        loop, told = session.num_loops, {"fps": session.fps, "begin": self.place.begin}
        self.facts = facts_of_latents(pipe, family, call, self.num_frames, loop=loop, **told)
        run = self.facts.of_surfaces()
        made = [tuple(term.surface(**run) for term in rule.terms) for rule in session.rules]
        if family.frame_levels is not None:
            steps_NF = self.place.steps_NF
            check_by_frame(rules, self.place)
            pixels_of = self.facts.frame_map.pixels_of(self.facts.num_frames)
            sizes = [len(pixels) for pixels in pixels_of]
            latent_T = np.repeat(np.arange(len(sizes)), sizes)
            made = [tuple(term.by_frame(steps_NF, latent_T) for term in terms) for terms in made]
            self.facts = replace(self.facts, calls=(1,) * len(steps_NF), sigmas_K=None)
        surfaces = [made[place] for place in places]
        if not session.scales_noted:
            session.scales_noted = True
            # What is written, and what a frame of more than full weight makes of it.
            strengths = [np.append(surface.scale_K, surface.strength_KT) for surface, *_ in made]
            peaks = {float(values[abs(values - 1).argmax()]) for values in strengths}
            low, high = family.usual_range
            for peak in sorted(peaks):
                if peak != 1 and not low <= peak <= high:
                    what = f"scale {peak:g} is outside of what people use with {family.name}"
                    usual = f"({low:g} to {high:g}, default {family.default_scale:g})"
                    logging.getLogger("vidcfg").warning("note: %s %s.", what, usual)
            if any(surface.is_evened for surfaces in made for surface in surfaces):
                logging.getLogger("vidcfg").warning(EVENED)
        levels = None
        if any(rule.method.needs_levels for rule in rules):
            levels = solver_levels(pipe.scheduler, call.get("eta"))
        samples = SampleRows.of(rules, surfaces, levels=levels, **self.facts.of_rows())
        stream = family.second_stream
        self.second = stream and GuidedSecondStream(stream, call, samples, surfaces)

        # What they ask of the model, and what the pipeline's state allows.
        if passes.mode == "auto" and getattr(module, "_parallel_config", None) is not None:
            raise ValueError(
                "guidance.passes: auto measures in each process, and processes that share a model "
                "(enable_parallelism) have to call it alike. Use passes: sequential, or batched."
            )
        start = RunStart(family, samples, module, arguments, session.classifier)
        self.changes = Changes(start)
        models = {None: module}
        if samples.experts is not None:
            models = {family.denoisers[n]: found for n, found in family.models_of(pipe).items()}
        self.caches = RunCaches(models, samples.experts, self.facts.calls)
        for cache, steps in self.caches.found:
            check_cache(cache, samples, passes, self.changes.touches, steps)
        if self.caches.found or self.changes.needs_samples or self.second is not None:
            passes = replace(passes, share=False)

        # Texts of the branches, the plan, the denoiser.
        self.sources = samples.sources()
        given = {"call": call, "arguments": arguments, "cond": cond}
        self.by_branch = session.texts.of_branches(self.sources, **given)
        inputs, told = self.by_branch | {"cond": cond}, self.memory.told
        starts, texts = _equal(shared, inputs, self.changes, told)
        how = {"share": passes.share, "evaluations_per_step": self.facts.calls}
        planned = plan_run(samples, starts=starts, texts=texts, **how)
        self.trace = session.trace
        self.trace.start_run(rules[0].order())
        self.trace.surfaces, self.trace.planned = [terms[0] for terms in surfaces], planned
        self.denoiser = GuidedDenoiser(
            layout,
            samples,
            passes,
            combine_dtype=torch.float32 if family.combines_in_float32 else None,
            timer=PassTimer((type(module).__name__, tuple(hidden.shape), str(hidden.device))),
        )

    def step(
        self, module: Any, original: Callable, expert: str | None, arguments: dict[str, Any]
    ) -> Any:
        """The guided replacement of one denoiser forward."""
        models = self.family.models_of(self.pipe)
        attribute = next(name for name, found in models.items() if found is module)
        inputs = self._inputs(module, arguments, expert if len(models) > 1 else None)
        control = self.session.control
        axis, hidden = self.family.channel_axis, arguments[self.family.hidden]
        has_variance = self.family.learns_variance and _channels(module) == 2 * hidden.shape[axis]

        def plain(**given: Any) -> Any:
            outputs = original(**given)
            self.returns_tensor = isinstance(outputs, Tensor)
            return outputs

        def evaluate(rows: dict[str, Tensor], branches: tuple[str, ...]) -> Tensor:
            order = rows.pop(ROW, None)
            given = with_rows(arguments, rows)
            beside = {path: r for path, r in rows.items() if path.split(".")[0] not in arguments}
            if "return_dict" in _parameters(module):
                given["return_dict"] = False
            given |= {name: make(given) for name, make in self.family.from_texts.items()}
            if control is not None:
                down, middle = control[0](**given.pop(self.family.control))
                given["down_block_additional_residuals"] = down
                given["mid_block_additional_residual"] = middle
            call = StepCall(
                family=self.family,
                module=module,
                attribute=attribute,
                original=plain,
                arguments=given,
                branches=branches,
                samples=() if order is None else tuple(order.tolist()),
                inputs=inputs,
                beside=beside,
            )
            with self.caches.context(module, branches, inputs):
                outputs = self.changes.run(call)
            if self.second is not None:
                self.second.keep(branches, call.samples, outputs)
            prediction = first(outputs)
            return prediction.chunk(2, axis)[0] if has_variance else prediction

        guided, step = self.denoiser.predict(inputs, evaluate, self.memory)
        self.trace.steps.append(step)
        if has_variance:
            guided = torch.cat([guided, guided], axis)
        if self.second is not None:
            return guided, self.second.guided(arguments, inputs.step, inputs.sigma)
        if "return_dict" in _parameters(module) and arguments.get("return_dict", True):
            from diffusers.models.modeling_outputs import Transformer2DModelOutput

            return Transformer2DModelOutput(sample=guided)
        return guided if self.returns_tensor else (guided,)

    def _inputs(self, module: Any, arguments: Mapping[str, Any], expert: str | None) -> StepInputs:
        """What this call of the denoiser brings."""
        family, scheduler, call = self.family, self.pipe.scheduler, self.place.index
        if family.frame_levels is not None:
            level, step = None, call
        else:
            level = self.place.levels[call] if family.has_levels else None
            step = step_of_call(scheduler, self.place.begin)[call]
        shared, cond = inputs_of(family, arguments)
        hidden = arguments[family.hidden]
        if self.second is not None or self.changes.needs_samples:
            shared[ROW] = torch.arange(hidden.shape[0], device=hidden.device)
        texts = self.session.texts
        by_branch = {
            branch: rows | texts.unconditional(arguments, cond, self.sources[branch])
            for branch, rows in self.by_branch.items()
        }
        by_branch["cond"] = cond
        channels = _channels(module)
        if family.learns_variance:
            channels = hidden.shape[family.channel_axis]
        # Models that see tokens may be told their rows and columns (LTX).
        grid = (arguments.get("height"), arguments.get("width"))
        return StepInputs(
            shared=shared,
            by_branch=self.changes.by_branch(by_branch, step),
            num_frames=self.num_frames,
            step=step,
            level=level,
            prediction=family.prediction or prediction_kind(scheduler),
            expert=expert,
            grid=grid if all(isinstance(size, int) for size in grid) else None,
            num_channels=None if family.layout == "tokens" else channels,
        )


def _equal(
    shared: Mapping[str, Tensor],
    by_branch: Mapping[str, Mapping[str, Tensor]],
    changes: Changes,
    told: dict[tuple, tuple],
) -> tuple[list[int], list[dict[str, Any]]]:
    """The start and the texts of every sample, told by their content."""
    starts = same_rows(("shared", *shared), shared, told)
    texts = {b: same_rows((b,), rows, told) for b, rows in by_branch.items()}
    conditions = [(same, changes.tag(b)) for b, same in enumerate(texts["cond"])]
    texts |= dict.fromkeys(changes.followers, conditions)
    return starts, [dict(zip(texts, seen)) for seen in zip(*texts.values())]


def _channels(module: Any) -> int | None:
    """Channels of a prediction, where the config of the model tells."""
    config = getattr(module, "config", {})
    return config.get("out_channels") or config.get("out_visual_dim")


def _parameters(module: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(type(module).forward).parameters


def run_facts(
    pipe: Any,
    family: Any,
    call: Mapping[str, Any],
    *,
    num_frames: int,
    fps: float | int | None,
    begin: int = 0,
) -> RunFacts:
    """What a run of `num_frames` pixel frames is; the scheduler of `pipe` has its timesteps.

    The run begins at entry `begin` of them.
    """
    if fps is None and family.fps_argument:
        fps = call.get(family.fps_argument)
    # A call that stops early, for a refiner to go on, has told its pipeline where.
    end = begin + pipe.num_timesteps if call.get("denoising_end") is not None else None
    # A second stream is made on every step, whatever the frames of the first need.
    always = ()
    if (second := family.second_stream) is not None:
        always = ("cond",) if second.scale_of(call) == 1 else ("cond", "uncond")
    return RunFacts(
        num_frames=num_frames,
        frame_map=family.frame_map(pipe),
        fps=None if fps is None else float(fps),
        always=frozenset(always),
        **steps_of(pipe, family, begin, end),
    )


def facts_of_latents(
    pipe: Any, family: Any, call: Mapping[str, Any], num_latents: int, *, loop: int, **told: Any
) -> RunFacts:
    """What the `loop`-th run of a call is, whose denoiser sees so many latent frames.

    `told` is what else `run_facts` takes.
    """
    frame_map = family.map_of(pipe, call, num_latents)
    length = family.length_argument and call.get(family.length_argument)
    num_pixels, part_T = length or frame_map.num_pixels(num_latents), None
    if family.part is not None:
        num_pixels, part_T = family.part(pipe, call, loop)
    facts = run_facts(pipe, family, call, num_frames=num_pixels, **told)
    return replace(facts, frame_map=frame_map, part_T=part_T)


def check_by_frame(rules: list[Any], place: FramePlace) -> None:
    """Raise ValueError for a rule that cannot follow frames which are on different steps."""
    found = [term.kind for rule in rules for term in rule.method.terms if term.goes_by_step]
    if found and not place.is_joint:
        raise ValueError(
            f"guidance.method {found[0]} goes from step to step, but the frames of this run are "
            f"on different steps. Use cfg, or ar_step=0."
        )


def _setting_of_sample(num_settings: int, num_samples: int, call: Mapping[str, Any]) -> list[int]:
    """The setting that each row of the batch has."""
    repeats = rows_per_prompt(call)
    if num_settings == 1:
        return [0] * num_samples
    if num_settings == num_samples:
        return list(range(num_samples))
    if num_settings * repeats == num_samples:
        return [place for place in range(num_settings) for _ in range(repeats)]
    raise ValueError(
        f"guide() got {num_settings} guidance settings, but the call makes {num_samples} "
        f"samples. Pass one setting, or one per sample."
    )
