"""`FrameGuidance`: the surface as a diffusers guider, for modular and guider-based pipelines."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput
from torch import Tensor

from vidcfg.guidance.frame_map import CausalMap, OneToOneMap
from vidcfg.guidance.frames import FunctionWeights
from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.passes import Passes, StepInputs
from vidcfg.guidance.plan import Memory, SampleRows, plan_run
from vidcfg.guidance.rule import AgainstUncond, Rule
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.step import GuidedDenoiser
from vidcfg.guidance.trace import Trace
from vidcfg.pipelines.steps import RunFacts


class FrameGuidance(BaseGuidance):
    """A diffusers guider with a strength for every step and frame.

        setting = vidcfg.Guidance(scale=6.0, frames={"kind": "decay", "end": 0.2})
        pipe.guider = FrameGuidance(setting)
        pipe(prompt, negative_prompt="blurry")

    The pipeline encodes the negative prompt and runs one pass per branch; a step on which every
    frame has strength 1 runs the conditional pass alone. Wan 2.2 takes two of them, as `guider`
    and `guider_2`, each over all steps.

    Args:
        guidance: the setting, as `vidcfg.Guidance`, as a dict in the words of YAML, or a scale.
        layout: axes of the prediction: BCFHW, BFCHW, or tokens with frames outermost.
        temporal_ratio: pixel frames per latent frame behind the first (1: one to one). A wrong one
            is told where the pipeline tells its frames, as modular ones do.
        latent_frames: number of latent frames; needed for `tokens`, else read from the prediction.
        fps: frame rate, for keyframes in seconds.
        start, stop, enabled: as in every guider; outside of start to stop guidance is off.

    Raises:
        ValueError: for a setting that a guider cannot carry out: rules that need more than the
            two predictions of a step, a dynamic threshold, and how the model is called.

    `trace` tells what the last run did. Saved with `save_pretrained`, loaded with
    `from_pretrained`, also as a part of a pipeline.
    """

    _input_predictions = ["pred_cond", "pred_uncond"]

    @register_to_config
    def __init__(
        self,
        guidance: Guidance | dict | float = 5.0,
        layout: str = "BCFHW",
        temporal_ratio: int = 4,
        latent_frames: int | None = None,
        fps: float | None = None,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ):
        super().__init__(start, stop, enabled)
        setting = _setting(guidance)
        # Plain data for the saved file; `new` drops what it takes for a default.
        defaults = [n for n in self.config.get("_use_default_values", []) if n != "guidance"]
        plain = json.loads(json.dumps(setting.to_dict()))
        self.register_to_config(guidance=plain, _use_default_values=defaults)
        self._rule = setting
        self._layout = FrameLayout(layout)
        self._frame_map = OneToOneMap() if temporal_ratio == 1 else CausalMap(temporal_ratio)
        if layout == "tokens" and not latent_frames:
            raise ValueError("layout tokens does not tell the latent frames. Pass latent_frames.")
        self._facts_of: Callable[[int], RunFacts] = self._own_facts
        self._facts: RunFacts | None = None
        self._terms: tuple = ()
        self._rows: SampleRows | None = None
        self._memory = Memory()
        self._seen: tuple[int, int | None] = -1, None
        self.trace = Trace()

    def save_config(self, *where: Any, **how: Any) -> None:
        if any(isinstance(term.frames, FunctionWeights) for term in self._rule.terms):
            raise ValueError(
                "guidance.frames is a function, which no file can hold. Save the guider with its "
                "numbers: frames=[weight(f) for f in range(num_frames)]."
            )
        super().save_config(*where, **how)

    def told_by(self, facts_of: Callable[[int], RunFacts], trace: Trace) -> None:
        """Ask a pipeline what a run of so many latent frames is, and keep its plan in `trace`."""
        self._facts_of, self.trace = facts_of, trace

    def set_state(self, step: int, num_inference_steps: int, timestep: Tensor) -> None:
        """Told by the pipeline before every step; a new run begins where steps start again."""
        last_step, count = self._seen
        if count != num_inference_steps or step <= last_step:
            self._facts = self._rows = None
            self.trace.start_run(self._rule.order())
        self._seen = step, num_inference_steps
        super().set_state(step, num_inference_steps, timestep)

    def prepare_inputs(self, data: Mapping[str, Any]) -> list[Any]:
        """The inputs of every branch that this step runs."""
        names = self._input_predictions[: self.num_conditions]
        return [self._prepare_batch(data, i, name) for i, name in enumerate(names)]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: dict) -> list[Any]:
        """The same from the state of modular blocks, whose latents may tell their frames."""
        latents = getattr(data, "latents", None)
        if self._facts is None and self._layout.axes != "tokens" and latents is not None:
            self._begin(self._layout.num_frames(latents))
            self._check_length(getattr(data, "num_frames", None), self._layout.num_frames(latents))
        names = self._input_predictions[: self.num_conditions]
        prepare = self._prepare_batch_from_block_state
        return [prepare(input_fields, data, i, name) for i, name in enumerate(names)]

    def _check_length(self, asked: int | None, num_latents: int) -> None:
        """Raise ValueError where the pipeline makes another number of frames than we think."""
        ours = self._facts.num_frames
        if asked is None or asked == ours or self._facts_of != self._own_facts:
            return
        ratio = (asked - 1) / max(num_latents - 1, 1)
        raise ValueError(
            f"this run makes {asked} frames of {num_latents} latent ones, but with temporal_ratio="
            f"{self.config.temporal_ratio} they would be {ours}. Pass temporal_ratio={ratio:g}."
        )

    @property
    def is_conditional(self) -> bool:
        return self._count_prepared == 1

    @property
    def num_conditions(self) -> int:
        """1 where this step surely needs no unconditional pass; 2 between steps and runs."""
        if not self._enabled:
            return 1
        if self._num_inference_steps is None:
            return 2
        if not self._inside():
            return 1
        if self._facts is None:
            if self.config.latent_frames is None:
                return 2
            self._begin(self.config.latent_frames)
        rows = self._rows or self._rows_of(1)
        needed = (step.branches for step in rows.at(self._step, self._memory, self._expert))
        return max(map(len, needed))

    def _inside(self) -> bool:
        first, last = (int(x * self._num_inference_steps) for x in (self._start, self._stop))
        return first <= self._step < last

    def _begin(self, num_frames: int) -> None:
        """Make the surfaces of a run whose predictions have so many latent frames."""
        self._facts, self._memory = self._facts_of(num_frames), Memory()
        run = self._facts.of_surfaces()
        self._terms = tuple(term.surface(**run) for term in self._rule.terms)

    @property
    def _expert(self) -> str | None:
        experts = self._facts.experts
        return None if experts is None else experts[self._step]

    def _own_facts(self, num_frames: int) -> RunFacts:
        """Of a run about which only the arguments of this guider are known."""
        return RunFacts(
            num_frames=self._frame_map.num_pixels(num_frames),
            frame_map=self._frame_map,
            fps=self.config.fps,
            calls=(1,) * self._num_inference_steps,
        )

    def _rows_of(self, num_samples: int) -> SampleRows:
        """So many samples of this run; `cond` runs on every step."""
        if self._rows is None or len(self._rows.rules) != num_samples:
            run = self._facts.of_rows() | {"always": frozenset({"cond"})}
            each = [self._rule] * num_samples, [self._terms] * num_samples
            self._rows = SampleRows.of(*each, **run)
        return self._rows

    def forward(self, pred_cond: Tensor, pred_uncond: Tensor | None = None) -> GuiderOutput:
        """The guided prediction of this step, frame by frame."""
        guided = pred_cond
        if self._enabled and self._inside():
            guided = self._guided({"cond": pred_cond, "uncond": pred_uncond})
        # What follows may be another run, which asks whether it must encode its texts.
        self._step = self._num_inference_steps = None
        return GuiderOutput(pred=guided, pred_cond=pred_cond, pred_uncond=pred_uncond)

    def _guided(self, predictions: dict[str, Tensor | None]) -> Tensor:
        cond = predictions["cond"]
        num_frames = self.config.latent_frames or self._layout.num_frames(cond)
        if self._facts is None:
            self._begin(num_frames)
        samples = self._rows_of(len(cond))
        if not self.trace.surfaces:
            self.trace.surfaces = [self._terms[0]] * len(cond)
            if self._facts_of != self._own_facts:
                how = {"share": False, "evaluations_per_step": self._facts.calls}
                self.trace.planned = plan_run(samples, **how)
        inputs = StepInputs(
            shared={"prediction": cond},
            by_branch={"cond": {}, "uncond": {}},
            num_frames=num_frames,
            step=self._step,
            expert=self._expert,
        )
        denoiser = GuidedDenoiser(self._layout, samples, Passes(share=False))
        guided, step = denoiser.predict(
            inputs, lambda rows, branches: predictions[branches[0]], self._memory
        )
        # What the pipeline ran, also where the guider had to ask for more than the step needs.
        run = {name: len(cond) for name, p in predictions.items() if p is not None}
        self.trace.steps.append(replace(step, evaluations=run, calls=len(run)))
        return guided


def _setting(guidance: Guidance | dict | float) -> Guidance:
    """The setting, checked for what a guider can carry out."""
    guidance = Guidance.of(guidance)
    beyond = {
        f"method: {guidance.kind}": not all(_of_two(term) for term in guidance.method.terms),
        "threshold": guidance.threshold is not None,
        "rescale.space: x0": not guidance.rescale.is_off and guidance.rescale.space == "x0",
        f"passes: {guidance.passes}": guidance.passes not in ("pipeline", "sequential"),
        "micro_batch": guidance.micro_batch is not None,
    }
    foreign = [name for name, is_set in beyond.items() if is_set]
    if foreign:
        raise ValueError(
            f"a guider sees two predictions and nothing else, so it cannot do "
            f"{', '.join(foreign)}. Leave that out, or use vidcfg.guide(pipe, ...) on a pipeline "
            f"without blocks, such as WanPipeline."
        )
    return guidance


def _of_two(rule: Rule) -> bool:
    """Whether a rule needs the two predictions of its steps, and nothing else."""
    if not isinstance(rule, AgainstUncond) or rule.in_x0 or rule.needs_levels:
        return False
    # A guider is not told whether the model predicts a flow.
    on = np.full((1, 1), 2.0), np.ones((1, 1))
    return not any(step.flow_only for step in rule.steps(*on))
