"""One `guide` block: turns each denoiser call of a pipeline into a guided one."""

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcfg.build.arguments import tensor_at, ungrouped, with_tensors
from vidcfg.build.branch_inputs import branch_texts, cond_texts, shared_inputs
from vidcfg.build.caches import cache_of, check_cache
from vidcfg.build.second_stream import ROW, SecondOutputs, keeping_uncond
from vidcfg.build.texts import BranchTexts, rows_per_prompt
from vidcfg.config import Guidance
from vidcfg.guidance.denoiser import GuidedDenoiser, Passes, SampleRows, StepInputs, equal_rows
from vidcfg.guidance.frame_map import CogVideoXMap
from vidcfg.guidance.passes import PassTimer
from vidcfg.guidance.plan import RunPlan, RunRow, plan_run
from vidcfg.guidance.rule import Rule
from vidcfg.guidance.surface import Surface
from vidcfg.guidance.trace import Trace
from vidcfg.models.families import Family
from vidcfg.models.noise_level import noise_level, prediction_kind, step_sigmas


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
    by_branch: dict[str, dict[str, Tensor]] = field(default_factory=dict)


class Session:
    """Holds a pipeline, its rules and the run in progress."""

    def __init__(
        self,
        pipe: Any,
        family: Family,
        rules: list[Rule],
        texts: BranchTexts,
        setting: Guidance,
        *,
        fps: float | int | None,
    ):
        self.pipe, self.family, self.rules, self.texts = pipe, family, rules, texts
        self.fps = fps
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
        if run.denoiser is None:
            self._begin(run, module, arguments)
        self._check_step(run)
        inputs = self._step_inputs(run, arguments, expert)
        second = None if run.second_scale is None else SecondOutputs(run.second_scale)

        def evaluate(rows: dict[str, Tensor], branches: tuple[str, ...]) -> Tensor:
            samples = rows.pop(ROW, None)
            rows = {n: ungrouped(t, tensor_at(arguments, n)) for n, t in rows.items()}
            call = with_tensors(arguments, rows)
            if "return_dict" in inspect.signature(type(module).forward).parameters:
                call["return_dict"] = False
            with _cache_context(module, branches, inputs, run.num_steps):
                outputs = original(**call)
            if second is not None:
                second.keep(outputs[self.family.second_stream.output], branches, samples)
            run.returns_tensor = isinstance(outputs, Tensor)
            return outputs if run.returns_tensor else outputs[0]

        guided, step = run.denoiser.predict(inputs, evaluate)
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
        shared = shared_inputs(self.family, arguments)
        hidden = arguments[self.family.hidden]
        if run.second_scale is not None:
            shared[ROW] = torch.arange(hidden.shape[0], device=hidden.device)
        by_branch = run.by_branch
        if self.family.unconditional is not None:
            by_branch = {branch: self.family.unconditional(arguments) for branch in by_branch}
        return StepInputs(
            shared=shared,
            by_branch=by_branch | {"cond": self._cond(arguments)},
            num_frames=run.num_frames,
            step=run.num_calls // scheduler.order,
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
        run.num_steps = -(-len(self.pipe.scheduler.timesteps) // self.pipe.scheduler.order)
        rules = self._rules_per_sample(hidden.shape[0], run.call)
        passes = self.passes
        if run.second_scale is not None:
            passes = replace(passes, share=False)
            if run.second_scale != 1:
                rules = [keeping_uncond(rule) for rule in rules]
        surfaces = self._surfaces(rules, run)
        self._note_scales(surfaces)
        samples = SampleRows(
            rules=tuple(rules),
            strength_BKF=np.stack([s.strength_KF for s in surfaces]),
            weights_BKF=np.stack([s.weights_KF for s in surfaces]),
        )
        cache = cache_of(module)
        if cache is not None:
            check_cache(cache, samples, passes)
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
        self.trace.start_run(surfaces=surfaces, planned=planned, order=rules[0].order())

    def _note_scales(self, surfaces: list[Surface]) -> None:
        """Log, once per block, a scale outside of what people use with this family."""
        if self._noted:
            return
        self._noted = True
        peaks = {float(s.scale_K[abs(s.scale_K - 1).argmax()]) for s in surfaces}
        for note in filter(None, map(self.family.scale_note, sorted(peaks))):
            logging.getLogger("vidcfg").warning("note: %s", note)

    def _rules_per_sample(self, num_samples: int, call: Mapping[str, Any]) -> list[Rule]:
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

    def _surfaces(self, rules: list[Rule], run: Run) -> list[Surface]:
        scheduler = self.pipe.scheduler
        num_steps = run.num_steps
        frame_map = self.family.frame_map(self.pipe)
        num_pixels = frame_map.num_pixels(run.num_frames)
        if isinstance(frame_map, CogVideoXMap) and run.call.get("num_frames"):
            num_pixels = run.call["num_frames"]
        experts = None
        if self.family.expert_of is not None:
            times = [float(scheduler.timesteps[k * scheduler.order]) for k in range(num_steps)]
            experts = tuple(self.family.expert_of(self.pipe, t) for t in times)
            experts = None if None in experts else experts
        fps = self.fps
        if fps is None and self.family.fps_argument:
            fps = run.call.get(self.family.fps_argument)
        made: dict[int, Surface] = {}
        for rule in rules:
            if id(rule) not in made:
                made[id(rule)] = rule.surface(
                    num_steps=num_steps,
                    num_frames=num_pixels,
                    frame_map=frame_map,
                    fps=None if fps is None else float(fps),
                    sigmas=step_sigmas(scheduler, num_steps, scheduler.order),
                    experts=experts,
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
        rows = [
            RunRow(
                method=rule.method,
                strength_KF=samples.strength_BKF[b],
                weights_KF=samples.weights_BKF[b],
                start=starts[b],
                texts=tuple((branch, served[b]) for branch, served in texts.items()),
                rule=rule.group_key(),
            )
            for b, rule in enumerate(samples.rules)
        ]
        order = self.pipe.scheduler.order
        return plan_run(rows, share=passes.share, evaluations_per_step=order)


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
