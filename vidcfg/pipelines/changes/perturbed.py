"""The branches of a run that change the model, its inputs, or see what `cond` sees."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vidcfg.guidance.passes import StepInputs
from vidcfg.guidance.perturbation import Change, Degradation, Perturbation, WeakModel
from vidcfg.guidance.plan import SampleRows
from vidcfg.pipelines.changes import perturbed, token_grid, watched
from vidcfg.pipelines.changes.autoguidance import weak_model
from vidcfg.pipelines.changes.cads import annealed, annealings, fingerprint
from vidcfg.pipelines.changes.classifier import LogProb, classifier_shift
from vidcfg.pipelines.changes.embedded import (
    check_embedded,
    embedded_scales,
    embedded_terms,
    with_scales,
)
from vidcfg.pipelines.changes.sag import Space, degraded_latents, seen_from
from vidcfg.pipelines.families import Family


def changes_of(samples: SampleRows) -> dict[str, Change]:
    """Branch -> what is changed for it, over the rules of all samples."""
    found: dict[str, Change] = {}
    for rule in samples.rules:
        for term in getattr(rule.method, "terms", (rule.method,)):
            found |= getattr(term, "changes", dict)()
    return found


def followers(samples: SampleRows) -> tuple[str, ...]:
    """The branches that see what `cond` sees."""
    sources = {b: s for rule in samples.rules for b, s in rule.method.sources().items()}
    return tuple(branch for branch, source in sources.items() if source == "cond")


@dataclass(frozen=True, eq=False)
class StepCall:
    """One call of a denoiser: `arguments` hold the rows of one branch, or of several unchanged.

    `samples` tells the sample of each row, where that is asked for; `original` is the denoiser's
    own forward, `attribute` its name in the pipeline, `inputs` what the step brings.
    """

    module: Any
    attribute: str
    original: Callable
    arguments: Mapping[str, Any]
    branches: tuple[str, ...]
    samples: tuple[int, ...]
    inputs: StepInputs


@dataclass
class Changes:
    """What a run's rules ask beyond other texts: made when it begins, asked at every call.

    Raises:
        ValueError: if the model cannot do what a rule asks.
    """

    family: Family
    samples: SampleRows
    module: Any
    arguments: Mapping[str, Any]
    classifier: LogProb | None = None
    of: dict[str, Change] = field(init=False)
    seen: dict[int, tuple[Tensor, dict]] = field(init=False, default_factory=dict)

    def __post_init__(self):
        self.of = changes_of(self.samples)
        self.followers = followers(self.samples)
        self.annealings = annealings(self.samples, self.family)
        self.starts: tuple[str, ...] = ()
        if any(self.annealings):
            rows = self.arguments[self.family.hidden].unbind(0)
            self.starts = tuple(fingerprint(row) for row in rows)
        self.embedded = embedded_terms(self.samples)
        if self.has_embedded:
            check_embedded(self.family, self.module, self.arguments)

    @property
    def has_embedded(self) -> bool:
        return any(place is not None for place in self.embedded)

    @property
    def degradations(self) -> tuple[Degradation, ...]:
        return tuple(change for change in self.of.values() if isinstance(change, Degradation))

    @property
    def needs_samples(self) -> bool:
        """Whether a branch is made from another's result, sample by sample, so none is shared."""
        return bool(self.degradations)

    def check_cache(self, cache: str) -> None:
        """Raise a ValueError where a branch leaves out blocks that hold a cache's state."""
        for change in self.of.values():
            skips = change.skip if isinstance(change, WeakModel) else None
            skips = skips or (isinstance(change, Perturbation) and change.kind == "skip")
            if skips and cache != "PyramidAttentionBroadcast":
                raise ValueError(
                    f"{change.rule} leaves out blocks, and {cache} keeps its state in the blocks. "
                    f"Switch it off with `disable_cache()`, or use guidance.method: pag."
                )

    def tag(self, sample: int) -> object:
        """What the condition of a sample depends on beside its text."""
        annealing = self.annealings[sample]
        return None if annealing is None else annealing.key

    def by_branch(
        self, by_branch: Mapping[str, Mapping[str, Tensor]], step: int
    ) -> dict[str, dict[str, Tensor]]:
        """The inputs of every branch on a step: conditions annealed, scales set."""
        cond = by_branch["cond"]
        if any(self.annealings):
            rows = len(self.annealings)
            own = {n: self.arguments.get(n) for n in cond}
            repeated = {n for n, t in own.items() if isinstance(t, Tensor) and len(t) != rows}
            cond = annealed(
                cond,
                self.annealings,
                self.starts,
                step=step,
                num_steps=self.samples.num_steps,
                repeated=frozenset(repeated),
            )
        found = {branch: dict(inputs) for branch, inputs in by_branch.items()}
        found |= {branch: dict(cond) for branch in ("cond", *self.followers)}
        if self.has_embedded:
            name, factor = self.family.embedded
            own = self.arguments[name]
            for branch, inputs in found.items():
                scales = embedded_scales(self.samples, self.embedded, step, branch)
                inputs[name] = with_scales(own, scales, factor)
        return found

    def run(self, call: StepCall) -> Any:
        """The model's outputs for one call, or what stands for them in a branch without a model.

        Raises:
            ValueError: if a layer does not exist, or a weak model cannot be made.
        """
        change = self.of.get(call.branches[0])
        if call.branches[0] == "classifier":
            return self._outputs(call, self._classified(call))
        if isinstance(change, Perturbation):
            with perturbed(call.module, self.family, change, call.arguments):
                return call.original(**call.arguments)
        if isinstance(change, WeakModel):
            return self._weak(change, call)
        if isinstance(change, Degradation):
            return self._degraded(change, call)
        return self._plain(call)

    def _plain(self, call: StepCall) -> Any:
        """A call of unchanged branches; what `cond` attends to is noted where a rule asks."""
        wanted = self._wanted(call.inputs.step) if "cond" in call.branches else ()
        if not wanted:
            return call.original(**call.arguments)
        with contextlib.ExitStack() as stack:
            maps = [
                stack.enter_context(watched(call.module, self.family, change, call.arguments))
                for change in wanted
            ]
            outputs = call.original(**call.arguments)
        prediction = _first(outputs)
        for row, (branch, sample) in enumerate(zip(call.branches, call.samples)):
            if branch == "cond":
                rows = {
                    change.layers: seen.volume()[row : row + 1]
                    for change, seen in zip(wanted, maps)
                }
                self.seen[sample] = (prediction[row : row + 1], rows)
        return outputs

    def _wanted(self, step: int) -> tuple[Degradation, ...]:
        """One degradation for each layer whose attention some sample needs on a step."""
        needed = {
            b for s in range(len(self.samples.rules)) for b in self.samples.branches(s, step)
        }
        return tuple({d.layers: d for d in self.degradations if d.branch in needed}.values())

    def _weak(self, change: WeakModel, call: StepCall) -> Any:
        device = call.arguments[self.family.hidden].device
        model = weak_model(call.module, change, call.attribute, device)
        target = call.original if model is call.module else model
        if not change.skip:
            return target(**call.arguments)
        skip = Perturbation("skip", change.skip, change.rule)
        with perturbed(model, self.family, skip, call.arguments):
            return target(**call.arguments)

    def _degraded(self, change: Degradation, call: StepCall) -> Any:
        space = self._space(call)
        hidden = call.arguments[self.family.hidden]
        axis, channels = self._channels(hidden, call.inputs)
        noisy = hidden.narrow(axis, 0, channels)
        seen = [self.seen[sample] for sample in call.samples]
        cond = torch.cat([prediction for prediction, _ in seen])
        maps = torch.cat([rows[change.layers] for _, rows in seen])
        latents = degraded_latents(noisy, cond, maps, change, space)
        rest = hidden.narrow(axis, channels, hidden.shape[axis] - channels)
        changed = {self.family.hidden: torch.cat([latents, rest], dim=axis)}
        outputs = call.original(**{**call.arguments, **changed})
        prediction = seen_from(noisy, latents, _first(outputs), space)
        return self._outputs(call, prediction, outputs)

    def _classified(self, call: StepCall) -> Tensor:
        hidden = call.arguments[self.family.hidden]
        axis, channels = self._channels(hidden, call.inputs)
        return classifier_shift(
            self.classifier,
            hidden,
            level=call.inputs.level,
            kind=call.inputs.prediction,
            step=call.inputs.step,
            num_channels=channels,
            channel_axis=axis,
        )

    def _space(self, call: StepCall) -> Space:
        if call.inputs.level is None:
            raise ValueError(
                "guidance.method: sag needs the noise level of the scheduler, which this "
                "scheduler does not give. Use guidance.method: pag."
            )
        hidden, frames = call.arguments[self.family.hidden], call.inputs.num_frames
        rows = hidden.shape[-2:]
        if self.family.layout == "tokens":
            rows = token_grid(self.family, call.module, call.arguments)[1:]
        return Space(
            layout=self.family.frame_layout,
            sizes=(frames, *rows),
            kind=call.inputs.prediction,
            level=call.inputs.level,
        )

    def _channels(self, hidden: Tensor, inputs: StepInputs) -> tuple[int, int]:
        """The channel axis of the noisy latents, and how many channels a prediction has."""
        axis = {"BCFHW": 1, "BCHW": 1, "BFCHW": 2, "tokens": 2}[self.family.layout]
        return axis, inputs.num_channels or hidden.shape[axis]

    def _outputs(self, call: StepCall, prediction: Tensor, like: Any = None) -> Any:
        """`prediction` in the place where a model's outputs hold it."""
        if isinstance(like, Tensor):
            return prediction
        return (prediction, *(like[1:] if like is not None else ()))


def _first(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]
