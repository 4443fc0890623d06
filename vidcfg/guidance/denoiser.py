"""One guided prediction: plan the evaluations, run them, combine them per frame, limit the result.

Pure tensor code. The caller gives a function that runs the model and the inputs of every branch;
no pipeline, file or setting is known here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.combination import combine, keep_off_frames
from vidcfg.guidance.gram import Gram, gram_of
from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.limits import frame_std
from vidcfg.guidance.passes import PassTimer, Row, clock, model_calls
from vidcfg.guidance.plan import required_branches
from vidcfg.guidance.prediction import convert
from vidcfg.guidance.rule import Rule
from vidcfg.guidance.trace import StepTrace

Evaluate = Callable[[dict[str, Tensor], tuple[str, ...]], Tensor]
"""Runs the model on named inputs of N rows; the second argument names the branch of each row."""


class NonFiniteError(RuntimeError):
    """A prediction holds NaN or Inf."""


@dataclass(frozen=True)
class Passes:
    """How a model wants to be called: the stock pipeline's own way, and what the user chose.

    `mode` is pipeline, sequential, batched or auto; `stock` is what "pipeline" means here.
    `batch_order` is the order of the branches in one batched call, `cond` last as diffusers does.
    """

    mode: str = "pipeline"
    stock: str = "sequential"
    micro_batch: int | None = None
    share: bool = True

    def batch_order(self, branches: tuple[str, ...]) -> tuple[str, ...]:
        return (*(b for b in branches if b != "cond"), "cond")


@dataclass(frozen=True)
class StepInputs:
    """What one denoiser call brings.

    Args:
        shared: inputs that all branches see, each with B rows; the first is the noisy sample.
        by_branch: further inputs of each branch (texts, masks), each with B rows.
        num_frames: latent frames F.
        step: index of the denoising step, for the surface.
        sigma: noise level as the scheduler gives it, for the trace.
        level: (alpha, sigma) of x_t = alpha x0 + sigma eps, or None where it is not known.
        prediction: kind of the model's prediction (vidcfg.guidance.prediction.KINDS).
        expert: name of the model, for pipelines with several.
    """

    shared: Mapping[str, Tensor]
    by_branch: Mapping[str, Mapping[str, Tensor]]
    num_frames: int
    step: int
    sigma: float | None = None
    level: tuple[float, float] | None = None
    prediction: str = "flow"
    expert: str | None = None

    @property
    def noisy(self) -> Tensor:
        return next(iter(self.shared.values()))

    def rows(self, branch: str) -> dict[str, Tensor]:
        """All inputs of one branch."""
        return dict(self.shared) | dict(self.by_branch[branch])


@dataclass(frozen=True, eq=False)
class SampleRows:
    """The rule of every sample of a batch and its strengths: row [k] of each is step k's."""

    rules: tuple[Rule, ...]
    strength_BKF: np.ndarray
    weights_BKF: np.ndarray


@dataclass(frozen=True)
class GuidedDenoiser:
    """Guided predictions for a batch of samples in one latent layout.

    `combine_dtype` is the dtype in which the stock pipeline combines (None: the model's own), used
    by the rule precision "pipeline"; `timer` serves the pass mode "auto".
    """

    layout: FrameLayout
    samples: SampleRows
    passes: Passes = Passes()
    combine_dtype: torch.dtype | None = None
    timer: PassTimer | None = None

    def predict(self, inputs: StepInputs, evaluate: Evaluate) -> tuple[Tensor, StepTrace]:
        """The guided prediction, in the model's layout, and what was done for it.

        Raises:
            NonFiniteError: if a prediction holds NaN or Inf, naming step, branch and frame.
        """
        strength_BF = self.samples.strength_BKF[:, inputs.step]
        weight_BF = self.samples.weights_BKF[:, inputs.step]
        needed = [
            required_branches(rule.method, strength, weight)
            for rule, strength, weight in zip(self.samples.rules, strength_BF, weight_BF)
        ]
        sources = self._sources(needed, inputs)
        results, calls = self._run(sources, inputs, evaluate)
        self._check_finite(results, inputs)
        guided, gram_stds = self._combine(needed, sources, results, inputs)
        evaluations = {}
        for branch, _ in results:
            evaluations[branch] = evaluations.get(branch, 0) + 1
        trace = StepTrace(
            inputs.step, inputs.sigma, inputs.expert, strength_BF, evaluations, calls, *gram_stds
        )
        return guided, trace

    def _sources(self, needed: list[tuple[str, ...]], inputs: StepInputs) -> dict[Row, Row]:
        """For each (branch, sample) that is needed, the evaluation that serves it."""
        branches = dict.fromkeys(branch for names in needed for branch in names)
        sources = {}
        for branch in branches:
            wanted = [sample for sample, names in enumerate(needed) if branch in names]
            first = wanted
            if self.passes.share and len(wanted) > 1:
                first = equal_rows(list(inputs.rows(branch).values()), wanted)
            sources |= {(branch, s): (branch, f) for s, f in zip(wanted, first)}
        return sources

    def _run(
        self, sources: dict[Row, Row], inputs: StepInputs, evaluate: Evaluate
    ) -> tuple[dict[Row, Tensor], int]:
        rows = list(dict.fromkeys(sources.values()))
        several = len({branch for branch, _ in rows}) > 1
        mode = self.passes.stock if self.passes.mode == "pipeline" else self.passes.mode
        timed = mode == "auto" and several
        if mode == "auto":
            mode = self.timer.choose() if several else "sequential"
        batched = mode == "batched" and several and _stackable(rows, inputs)
        names = tuple(dict.fromkeys(branch for branch, _ in rows))
        calls = model_calls(
            rows,
            batched=batched,
            batch_order=self.passes.batch_order(names),
            micro_batch=self.passes.micro_batch,
        )
        began = clock(inputs.noisy.device) if timed else 0.0
        results = {}
        for call in calls:
            prediction = evaluate(_gather(call, inputs), tuple(branch for branch, _ in call))
            results |= dict(zip(call, prediction.split(1)))
        if timed:
            self.timer.record(mode, clock(inputs.noisy.device) - began)
        return results, len(calls)

    def _check_finite(self, results: dict[Row, Tensor], inputs: StepInputs) -> None:
        finite = torch.stack([torch.isfinite(p).all() for p in results.values()])
        if bool(finite.all()):
            return
        (branch, sample), prediction = next(
            item for item, good in zip(results.items(), finite.tolist()) if not good
        )
        frames = self.layout.frames(prediction, inputs.num_frames).flatten(2)
        frame = int(torch.nonzero(~torch.isfinite(frames).all(dim=2)[0])[0])
        raise NonFiniteError(
            f"step {inputs.step}: the {branch} prediction of sample {sample} holds NaN or Inf, "
            f"first in latent frame {frame}. In half precision a lower scale, guidance.rescale, "
            f"guidance.clamp or model.dtype: float32 helps."
        )

    def _combine(
        self, needed, sources: dict[Row, Row], results: dict[Row, Tensor], inputs: StepInputs
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Combine group by group: samples of one rule with the same branches go together."""
        groups: dict[tuple, list[int]] = {}
        for sample, names in enumerate(needed):
            groups.setdefault((self.samples.rules[sample].group_key(), names), []).append(sample)
        pieces, stds, order = [], [], []
        for (_, names), members in groups.items():
            predictions = {
                branch: torch.cat([results[sources[branch, s]] for s in members])
                for branch in names
            }
            guided, std = self._combine_group(predictions, members, inputs)
            pieces.append(guided)
            stds.append(std)
            order += members
        if len(pieces) == 1:
            return pieces[0], stds[0]
        index = torch.tensor(order, device=pieces[0].device).argsort()
        before, after = (torch.cat([std[i] for std in stds])[index] for i in (0, 1))
        return torch.cat(pieces)[index], (before, after)

    def _combine_group(
        self, predictions: dict[str, Tensor], members: list[int], inputs: StepInputs
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        rule = self.samples.rules[members[0]]
        model_dtype = next(iter(predictions.values())).dtype
        dtype = torch.promote_types(torch.float32, model_dtype)
        if rule.precision == "pipeline":
            dtype = self.combine_dtype or model_dtype
        frames = {
            branch: self.layout.frames(p, inputs.num_frames).to(dtype)
            for branch, p in predictions.items()
        }
        if tuple(frames) == ("cond",):
            std = gram_of(frames).covariance()[:, :, 0, 0].sqrt()
            return predictions["cond"].to(self.combine_dtype or model_dtype), (std, std)
        only = next(iter(frames.values()))
        frames = {branch: frames.get(branch, only) for branch in rule.method.branches}
        strength_BF, weight_BF = (
            torch.from_numpy(rows[members, inputs.step])
            for rows in (self.samples.strength_BKF, self.samples.weights_BKF)
        )
        gram = gram_of(frames)
        grouped = gram.clip() if rule.statistics == "clip" else gram
        combination = rule.method.combination(
            grouped, strength_BF=strength_BF, weight_BF=weight_BF
        )
        guided, after = self._limited(rule, frames, combination, gram, members, inputs)
        guided = self.layout.restore(guided).to(self.combine_dtype or model_dtype)
        before = gram.covariance()[:, :, gram.branches.index("cond"), gram.branches.index("cond")]
        return guided, (before.sqrt(), after)

    def _limited(self, rule: Rule, frames, combination, gram: Gram, members, inputs: StepInputs):
        """method -> rescale -> threshold -> clamp, and the spread of the result."""
        if rule.rescale is not None and rule.rescale.amount:
            combination = rule.rescale.apply(combination, gram, statistics=rule.statistics)
        guided = combine(frames, combination)
        if rule.threshold is None and rule.clamp is None:
            return guided, frame_std(combination, gram)
        if rule.threshold is not None:
            guided = self._threshold(rule, guided, members, inputs)
        if rule.clamp is not None:
            guided = rule.clamp.apply(guided, statistics=rule.statistics)
        guided = keep_off_frames(guided, frames, combination)
        return guided, guided.flatten(2).double().std(dim=2, correction=0)

    def _threshold(self, rule: Rule, guided: Tensor, members, inputs: StepInputs) -> Tensor:
        if inputs.level is None:
            raise ValueError(
                "guidance.threshold needs the noise level of the scheduler, which this scheduler "
                "does not give. Use guidance.rescale or guidance.clamp."
            )
        alpha, sigma = inputs.level
        noisy = self.layout.frames(inputs.noisy[members], inputs.num_frames).to(guided.dtype)
        kinds = {"alpha": alpha, "sigma": sigma}
        x0 = convert(guided, noisy, inputs.prediction, "sample", **kinds)
        tamed = rule.threshold.apply(x0, statistics=rule.statistics)
        change = convert(tamed, noisy, "sample", inputs.prediction, **kinds)
        return torch.where(tamed == x0, guided, change)


def equal_rows(tensors: list[Tensor], samples: list[int]) -> list[int]:
    """For each of `samples` the first one whose rows are equal, bit for bit, in all tensors."""
    sums = torch.stack([t.reshape(len(t), -1).double().sum(dim=1) for t in tensors], dim=1).tolist()
    first: dict[tuple, list[int]] = {}
    served = []
    for sample in samples:
        known = first.setdefault(tuple(sums[sample]), [])
        match = next(
            (k for k in known if all(torch.equal(t[k], t[sample]) for t in tensors)), None
        )
        if match is None:
            known.append(sample)
        served.append(sample if match is None else match)
    return served


def _stackable(rows: list[Row], inputs: StepInputs) -> bool:
    """Whether the inputs of all branches have the same shapes, so that one call can hold them."""
    shapes = {
        tuple((name, t.shape[1:]) for name, t in inputs.by_branch[branch].items())
        for branch, _ in rows
    }
    return len(shapes) == 1


def _gather(call: list[Row], inputs: StepInputs) -> dict[str, Tensor]:
    """The inputs of one model call: the rows of each branch, in the order of the call."""
    pieces = []
    for branch in dict.fromkeys(branch for branch, _ in call):
        samples = [sample for name, sample in call if name == branch]
        tensors = inputs.rows(branch)
        if samples != list(range(inputs.noisy.shape[0])):
            index = torch.tensor(samples, device=inputs.noisy.device)
            tensors = {name: t.index_select(0, index.to(t.device)) for name, t in tensors.items()}
        pieces.append(tensors)
    if len(pieces) == 1:
        return pieces[0]
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
