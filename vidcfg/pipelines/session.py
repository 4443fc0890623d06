"""One `guide` block: turns each denoiser call of a pipeline into a guided one."""

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vidcfg.guidance.frame_map import CogVideoXMap
from vidcfg.guidance.passes import Passes, PassTimer, StepInputs, equal_rows
from vidcfg.guidance.plan import Memory, RunPlan, RunRow, SampleRows, plan_run
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.step import GuidedDenoiser
from vidcfg.guidance.surface import Surface
from vidcfg.guidance.trace import Trace
from vidcfg.pipelines.arguments import tensor_at, ungrouped, with_tensors
from vidcfg.pipelines.branch_inputs import branch_texts, cond_texts, shared_inputs
from vidcfg.pipelines.caches import cache_of, check_cache
from vidcfg.pipelines.changes.classifier import LogProb
from vidcfg.pipelines.changes.perturbed import Changes, StepCall
from vidcfg.pipelines.families import Family
from vidcfg.pipelines.noise_level import (
    calls_per_step,
    first_calls,
    noise_level,
    prediction_kind,
    step_of_call,
    step_sigmas,
)
from vidcfg.pipelines.second_stream import ALWAYS, ROW, SecondOutputs
from vidcfg.pipelines.solver_levels import solver_levels
from vidcfg.pipelines.texts import BranchTexts, rows_per_prompt


@dataclass
class Run:
    """The state of one pipeline call: reset when the next one begins."""

    call: Mapping[str, Any]
    num_calls: int = 0
    denoiser: GuidedDenoiser | None = None
    num_frames: int = 0
    num_steps: int = 0
    second_scale: float | None = None
    returns_tensor: bool = False
    memory: Memory = field(default_factory=Memory)
    by_branch: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    changes: Changes | None = None


class Session:
    """Holds a pipeline, its rules and the run in progress."""

    def __init__(
        self,
        pipe: Any,
        family: Family,
        rules: list[Guidance],
        texts: BranchTexts,
        setting: Guidance,
        *,
        fps: float | int | None,
        classifier: LogProb | None = None,
    ):
        self.pipe, self.family, self.rules, self.texts = pipe, family, rules, texts
        self.fps, self.classifier = fps, classifier
        self.passes = Passes(
            mode=setting.passes,
            stock=family.stock_passes,
            micro_batch=setting.micro_batch,
            share=setting.share,
        )
        self.trace = Trace()
        self._run: Run | None = None
        self._noted = False

    def close(self) -> None:
        """Let go of the pipeline, so that a kept trace keeps no model alive."""
        self.pipe = self._run = None

    @contextlib.contextmanager
    def run(self, call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """One pipeline call with these arguments (defaults filled in).

        Yields the arguments that guidance takes over from the pipeline, with their off values.

        Raises:
            ValueError: if the pipeline is in a state that cannot be guided.
        """
        reason = self.family.refusal(self.pipe) if self.family.refusal else None
        if reason is not None:
            raise ValueError(reason)
        self._run = Run(call)
        taken = {}
        if self.family.second_stream is not None:
            name = self.family.second_stream.scale_argument
            scale = call.get(name)
            self._run.second_scale = self.family.second_stream.fallback if scale is None else scale
            taken[name] = 1.0
        try:
            yield taken
        finally:
            self._run = None

    def forward(
        self, module: Any, original: Callable, expert: str | None, arguments: dict[str, Any]
    ) -> Any:
        """The guided replacement of one denoiser forward."""
        run = self._run
        takes_return_dict = "return_dict" in inspect.signature(type(module).forward).parameters
        if run.denoiser is None:
            run.returns_tensor = not takes_return_dict
            self._begin(run, module, arguments)
        self._check_step(run)
        inputs = replace(
            self._step_inputs(run, arguments, expert),
            num_channels=_prediction_channels(module, self.family),
            grid=_token_grid(arguments),
        )
        second = None if run.second_scale is None else SecondOutputs(run.second_scale)

        def evaluate(rows: dict[str, Tensor], branches: tuple[str, ...]) -> Tensor:
            samples = rows.pop(ROW, None)
            rows = {n: ungrouped(t, tensor_at(arguments, n)) for n, t in rows.items()}
            call = with_tensors(arguments, rows)
            if takes_return_dict:
                call["return_dict"] = False
            step_call = StepCall(
                module=module,
                attribute=self._attribute(module),
                original=original,
                arguments=call,
                branches=branches,
                samples=() if samples is None else tuple(samples.tolist()),
                inputs=inputs,
            )
            with _cache_context(module, branches, inputs, run.num_steps):
                outputs = run.changes.run(step_call)
            if second is not None and len(outputs) > 1:
                second.keep(outputs[self.family.second_stream.output], branches, samples)
            if "classifier" not in branches:
                run.returns_tensor = isinstance(outputs, Tensor)
            return outputs if isinstance(outputs, Tensor) else outputs[0]

        guided, step = run.denoiser.predict(inputs, evaluate, run.memory)
        self.trace.steps.append(step)
        run.num_calls += 1
        if second is not None:
            return guided, second.guided(guided.shape[0])
        if run.returns_tensor:
            return guided
        if arguments.get("return_dict", True):
            from diffusers.models.modeling_outputs import Transformer2DModelOutput

            return Transformer2DModelOutput(sample=guided)
        return (guided,)

    def _step_inputs(self, run: Run, arguments: dict[str, Any], expert: str | None) -> StepInputs:
        scheduler = self.pipe.scheduler
        level = noise_level(scheduler, run.num_calls)
        step = step_of_call(scheduler)[run.num_calls]
        shared = shared_inputs(self.family, arguments)
        hidden = arguments[self.family.hidden]
        if run.second_scale is not None or run.changes.needs_samples:
            shared[ROW] = torch.arange(hidden.shape[0], device=hidden.device)
        by_branch = run.by_branch
        if self.family.unconditional is not None:
            by_branch = {branch: self.family.unconditional(arguments) for branch in by_branch}
        return StepInputs(
            shared=shared,
            by_branch=run.changes.by_branch(by_branch | {"cond": self._cond(arguments)}, step),
            num_frames=run.num_frames,
            step=step,
            sigma=None if level is None else level[1],
            level=level,
            prediction=self.family.prediction or prediction_kind(scheduler),
            expert=expert if len(self._present_experts()) > 1 else None,
        )

    def _cond(self, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the conditional branch sees in the places that the other branches fill anew."""
        if self.family.unconditional is not None:
            return {name: arguments[name] for name in self.family.unconditional(arguments)}
        return cond_texts(self.family, arguments)

    def _check_step(self, run: Run) -> None:
        """Raise a ValueError where the pipeline runs its denoiser more often than it has steps."""
        if run.num_calls >= len(self.pipe.scheduler.timesteps):
            raise ValueError(
                f"the pipeline calls its denoiser more than {run.num_calls} times, which is all "
                f"that its scheduler has, so the step of the surface cannot be told. "
                f"Switch off what repeats the denoising loop."
            )

    def _attribute(self, module: Any) -> str:
        """The name of a denoiser in its pipeline."""
        names = self.family.denoisers
        return next(name for name in names if getattr(self.pipe, name, None) is module)

    def _present_experts(self) -> list[str | None]:
        names = self.family.denoisers.items()
        return [expert for name, expert in names if getattr(self.pipe, name, None) is not None]

    def _begin(self, run: Run, module: Any, arguments: dict[str, Any]) -> None:
        """Fix what a run keeps: rules and surfaces per sample, texts of the branches, plan."""
        hidden = arguments[self.family.hidden]
        layout = self.family.frame_layout
        run.num_frames = (
            self.family.latent_frames(arguments)
            if self.family.latent_frames
            else layout.num_frames(hidden)
        )
        run.num_steps = len(calls_per_step(self.pipe.scheduler))
        rules = self._rules_per_sample(hidden.shape[0], run.call)
        passes = self.passes
        if run.second_scale is not None:
            passes = replace(passes, share=False)
        surfaces = self._surfaces(rules, run)
        first_terms = [terms[0] for terms in surfaces]
        self._note_scales(first_terms)
        levels = None
        if any(rule.method.needs_levels for rule in rules):
            levels = solver_levels(self.pipe.scheduler)
        samples = SampleRows.of(
            rules,
            surfaces,
            experts=self._experts(run),
            levels=levels,
            always=frozenset() if run.second_scale in (None, 1) else ALWAYS,
        )
        run.changes = Changes(self.family, samples, module, arguments, self.classifier)
        if run.changes.needs_samples:
            passes = replace(passes, share=False)
        cache = cache_of(module)
        if cache is not None:
            check_cache(cache, samples, passes)
            run.changes.check_cache(cache)
            passes = replace(passes, share=False)
        run.by_branch = branch_texts(
            self.pipe, self.family, self.texts, samples, call=run.call, arguments=arguments
        )
        run.denoiser = GuidedDenoiser(
            layout,
            samples,
            passes,
            combine_dtype=torch.float32 if self.family.combines_in_float32 else None,
            timer=PassTimer((type(module).__name__, tuple(hidden.shape), str(hidden.device))),
        )
        planned = self._plan(samples, run, arguments, passes)
        self.trace.start_run(surfaces=first_terms, planned=planned, order=rules[0].order())

    def _note_scales(self, surfaces: list[Surface]) -> None:
        """Log, once per block, a scale outside of what people use with this family."""
        if self._noted:
            return
        self._noted = True
        peaks = {float(s.scale_K[abs(s.scale_K - 1).argmax()]) for s in surfaces}
        for note in filter(None, map(self.family.scale_note, sorted(peaks))):
            logging.getLogger("vidcfg").warning("note: %s", note)

    def _rules_per_sample(self, num_samples: int, call: Mapping[str, Any]) -> list[Guidance]:
        """One rule per row of the batch.

        Raises:
            ValueError: if the number of settings fits neither the samples nor the prompts.
        """
        repeats = rows_per_prompt(call)
        if len(self.rules) == 1:
            return self.rules * num_samples
        if len(self.rules) == num_samples:
            return list(self.rules)
        if len(self.rules) * repeats == num_samples:
            return [rule for rule in self.rules for _ in range(repeats)]
        raise ValueError(
            f"guide() got {len(self.rules)} guidance settings, but the call makes {num_samples} "
            f"samples. Pass one setting, or one per sample."
        )

    def _experts(self, run: Run) -> tuple[str, ...] | None:
        """The name of the model of each step, None for pipelines with one model."""
        if self.family.expert_of is None:
            return None
        scheduler = self.pipe.scheduler
        times = [float(scheduler.timesteps[call]) for call in first_calls(scheduler)]
        experts = tuple(self.family.expert_of(self.pipe, t) for t in times)
        return None if None in experts else experts

    def _surfaces(self, rules: list[Guidance], run: Run) -> list[tuple[Surface, ...]]:
        """The surfaces of every sample, one for each term of its rule."""
        scheduler = self.pipe.scheduler
        num_steps = run.num_steps
        frame_map = self.family.frame_map(self.pipe)
        num_pixels = frame_map.num_pixels(run.num_frames)
        if isinstance(frame_map, CogVideoXMap) and run.call.get("num_frames"):
            num_pixels = run.call["num_frames"]
        fps = self.fps
        if fps is None and self.family.fps_argument:
            fps = run.call.get(self.family.fps_argument)
        made: dict[int, tuple[Surface, ...]] = {}
        for rule in rules:
            if id(rule) not in made:
                made[id(rule)] = rule.surfaces(
                    num_steps=num_steps,
                    num_frames=num_pixels,
                    frame_map=frame_map,
                    fps=None if fps is None else float(fps),
                    sigmas=step_sigmas(scheduler),
                    experts=self._experts(run),
                )
        return [made[id(rule)] for rule in rules]

    def _plan(
        self, samples: SampleRows, run: Run, arguments: Mapping[str, Any], passes: Passes
    ) -> RunPlan:
        """The evaluations of this run; equal starts and texts are told by their content."""
        everyone = list(range(len(samples.rules)))
        starts = equal_rows(list(shared_inputs(self.family, arguments).values()), everyone)
        texts = {
            branch: equal_rows(list(tensors.values()), everyone)
            for branch, tensors in (run.by_branch | {"cond": self._cond(arguments)}).items()
        }
        conditions = [(same, run.changes.tag(b)) for b, same in enumerate(texts["cond"])]
        texts |= dict.fromkeys(("cond", *run.changes.followers), conditions)
        rows = [
            RunRow(
                method=rule.method,
                strength_KF=samples.strength_BKF[b],
                weights_KF=samples.weights_BKF[b],
                start=starts[b],
                texts=tuple((branch, served[b]) for branch, served in texts.items()),
                rule=rule.group_key(),
                experts=samples.experts,
                always=samples.always,
            )
            for b, rule in enumerate(samples.rules)
        ]
        calls = calls_per_step(self.pipe.scheduler)
        return plan_run(rows, share=passes.share, evaluations_per_step=calls)


def _token_grid(arguments: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of a frame in tokens, for models that are told them (LTX)."""
    sizes = (arguments.get("height"), arguments.get("width"))
    return sizes if all(isinstance(size, int) for size in sizes) else None


def _prediction_channels(module: Any, family: Family) -> int | None:
    """The channels of a prediction; None where they are those of the noisy sample."""
    if family.frame_layout.axes == "tokens":
        return None
    return getattr(getattr(module, "config", None), "out_channels", None)


def _cache_context(
    module: Any, branches: tuple[str, ...], inputs: StepInputs, num_steps: int
) -> contextlib.AbstractContextManager:
    """Caching hooks keep one state per branch; models without caches need none."""
    context = getattr(module, "cache_context", None)
    if context is None:
        return contextlib.nullcontext()
    where = {"step_index": inputs.step, "num_inference_steps": num_steps, "sigma": inputs.sigma}
    accepts = inspect.signature(context).parameters
    where = where if "kwargs" in accepts else {}
    return context("_".join(dict.fromkeys(branches)), **where)
