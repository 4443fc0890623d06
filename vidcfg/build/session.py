"""One `guide` block: turns each denoiser call of a pipeline into a guided one."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcfg.build.texts import BranchTexts, as_rows, encode
from vidcfg.config import Guidance
from vidcfg.guidance.denoiser import GuidedDenoiser, Passes, SampleRows, StepInputs, equal_rows
from vidcfg.guidance.frame_map import CogVideoXMap
from vidcfg.guidance.passes import PassTimer
from vidcfg.guidance.plan import RunRow, plan_run, required_branches
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

    def close(self) -> None:
        """Let go of the pipeline, so that a kept trace keeps no model alive."""
        self.pipe = self._run = None

    @contextlib.contextmanager
    def run(self, call: Mapping[str, Any]) -> Iterator[None]:
        """One pipeline call with these arguments (defaults filled in)."""
        self._run = Run(call)
        try:
            yield
        finally:
            self._run = None

    def forward(
        self, module: Any, original: Callable, expert: str | None, arguments: dict[str, Any]
    ) -> Any:
        """The guided replacement of one denoiser forward."""
        run = self._run
        if run is None:
            raise RuntimeError(
                "the denoiser was called inside vidcfg.guide but outside of a pipeline call. "
                "Call the pipeline, or leave the guide block first."
            )
        if run.denoiser is None:
            self._begin(run, module, arguments)
        names = (self.family.hidden, *self.family.per_sample)
        shared = {n: arguments[n] for n in names if isinstance(arguments.get(n), Tensor)}
        order = self.pipe.scheduler.order
        level = noise_level(self.pipe.scheduler, run.num_calls)
        inputs = StepInputs(
            shared=shared,
            by_branch=run.by_branch | {"cond": self._cond_texts(arguments)},
            num_frames=run.num_frames,
            step=run.num_calls // order,
            sigma=None if level is None else level[1],
            level=level,
            prediction=self.family.prediction or prediction_kind(self.pipe.scheduler),
            expert=expert if len(self._present_experts()) > 1 else None,
        )

        def evaluate(rows: dict[str, Tensor], branches: tuple[str, ...]) -> Tensor:
            name = branches[0] if len(set(branches)) == 1 else "_".join(dict.fromkeys(branches))
            with _cache_context(module, name):
                return original(**(arguments | rows | {"return_dict": False}))[0]

        guided, step = run.denoiser.predict(inputs, evaluate)
        self.trace.steps.append(step)
        run.num_calls += 1
        if arguments.get("return_dict", True):
            from diffusers.models.modeling_outputs import Transformer2DModelOutput

            return Transformer2DModelOutput(sample=guided)
        return (guided,)

    def _present_experts(self) -> list[str | None]:
        names = self.family.denoisers.items()
        return [expert for name, expert in names if getattr(self.pipe, name, None) is not None]

    def _cond_texts(self, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        return {n: arguments[n] for n in self.family.texts if isinstance(arguments.get(n), Tensor)}

    def _begin(self, run: Run, module: Any, arguments: dict[str, Any]) -> None:
        """Fix what a run keeps: rules and surfaces per sample, texts of the branches, plan."""
        hidden = arguments[self.family.hidden]
        layout = self.family.frame_layout
        run.num_frames = (
            self.family.latent_frames(arguments)
            if self.family.latent_frames
            else layout.num_frames(hidden)
        )
        rules = self._rules_per_sample(hidden.shape[0], run.call)
        surfaces = self._surfaces(rules, run)
        samples = SampleRows(
            rules=tuple(rules),
            strength_BKF=np.stack([s.strength_KF for s in surfaces]),
            weights_BKF=np.stack([s.weights_KF for s in surfaces]),
        )
        run.by_branch = self._branch_texts(run, samples, arguments)
        key = (type(module).__name__, tuple(hidden.shape), str(hidden.device))
        run.denoiser = GuidedDenoiser(
            layout,
            samples,
            self.passes,
            combine_dtype=torch.float32 if self.family.combines_in_float32 else None,
            timer=PassTimer(key),
        )
        planned = self._plan(samples, run, arguments)
        self.trace.start_run(surfaces=surfaces, planned=planned, order=rules[0].order())

    def _rules_per_sample(self, num_samples: int, call: Mapping[str, Any]) -> list[Rule]:
        """One rule per row of the batch.

        Raises:
            ValueError: if the number of settings fits neither the samples nor the prompts.
        """
        repeats = call.get("num_videos_per_prompt") or 1
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
        num_steps = -(-len(scheduler.timesteps) // scheduler.order)
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

    def _branch_texts(
        self, run: Run, samples: SampleRows, arguments: Mapping[str, Any]
    ) -> dict[str, dict[str, Tensor]]:
        """The text arguments of every branch that the run needs on some step."""
        by_branch: dict[str, dict[str, Tensor]] = {}
        encoded: dict[str, dict[str, Tensor]] = dict(self.texts.inputs)
        cond = self._cond_texts(arguments)
        num_rows = arguments[self.family.hidden].shape[0]
        repeats = run.call.get("num_videos_per_prompt") or 1
        for branch, source in _needed_sources(samples).items():
            if source not in encoded:
                texts = self.texts.text(source, num_rows // repeats)
                encoded[source] = encode(self.pipe, self.family, texts, run.call)
            by_branch[branch] = {
                argument: as_rows(encoded[source][name], cond[argument], name)
                for argument, name in self.family.texts.items()
                if argument in cond
            }
        return by_branch

    def _plan(self, samples: SampleRows, run: Run, arguments: Mapping[str, Any]):
        """The evaluations of this run; equal starts and texts are told by their content."""
        everyone = list(range(len(samples.rules)))
        starts = equal_rows([arguments[self.family.hidden]], everyone)
        texts = {
            branch: equal_rows(list(tensors.values()), everyone)
            for branch, tensors in (run.by_branch | {"cond": self._cond_texts(arguments)}).items()
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
        return plan_run(rows, share=self.passes.share, evaluations_per_step=order)


def _needed_sources(samples: SampleRows) -> dict[str, str]:
    """Branch -> text source, for the branches that some sample needs on some step."""
    sources: dict[str, str] = {}
    for b, rule in enumerate(samples.rules):
        for strength, weight in zip(samples.strength_BKF[b], samples.weights_BKF[b]):
            for branch in required_branches(rule.method, strength, weight):
                if branch != "cond":
                    sources[branch] = _one_source(sources, branch, rule.method.sources()[branch])
    return sources


def _one_source(known: Mapping[str, str], branch: str, source: str) -> str:
    """`source`, unless another sample's rule reads the branch from another text.

    Raises:
        ValueError: in that case; one batch has one text per branch and sample.
    """
    if known.get(branch, source) != source:
        raise ValueError(
            f"the samples of this batch use rules whose {branch} branch sees different texts "
            f"({known[branch]} and {source} prompt). Render them in two calls."
        )
    return source


def _cache_context(module: Any, branch: str):
    """Caching hooks keep one state per branch; models without caches need none."""
    context = getattr(module, "cache_context", None)
    return context(branch) if context is not None else contextlib.nullcontext()
