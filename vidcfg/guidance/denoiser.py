"""One guided prediction: plan the evaluations, run them, combine them per frame, limit the result.

Pure tensor code. The caller gives a function that runs the model and the inputs of every branch;
no pipeline, file or setting is known here.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from vidcfg.guidance.combination import combine, keep_off_frames
from vidcfg.guidance.gram import differences_from, gram_of
from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.limits import frame_std
from vidcfg.guidance.passes import PassTimer, Row, clock, model_calls
from vidcfg.guidance.plan import required_branches
from vidcfg.guidance.prediction import convert
from vidcfg.guidance.rule import Rule
from vidcfg.guidance.trace import StepTrace

Evaluate = Callable[[dict[str, Tensor], tuple[str, ...]], Tensor]
"""Runs the model on named inputs of N rows; the second argument names the branch of each row."""

Spread = tuple[np.ndarray, np.ndarray]
"""Standard deviation per sample and frame, before guidance and after it."""


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
        """`branches` in the order of one batched call."""
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
    strength_BKF: Float64[np.ndarray, "B K F"]
    weights_BKF: Float64[np.ndarray, "B K F"]


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
        guided, (before, after) = self._combine(needed, sources, results, inputs)
        trace = StepTrace(
            step=inputs.step,
            sigma=inputs.sigma,
            expert=inputs.expert,
            strength_BF=strength_BF,
            evaluations=dict(Counter(branch for branch, _ in results)),
            calls=calls,
            std_cond_BF=before,
            std_guided_BF=after,
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
        """The predictions of all rows that are needed, and the number of model calls."""
        rows = list(dict.fromkeys(sources.values()))
        sizes = Counter(branch for branch, _ in rows)
        names = tuple(sizes)
        mode = self.passes.stock if self.passes.mode == "pipeline" else self.passes.mode
        stackable = len(names) > 1 and _stackable(names, inputs)
        timed = mode == "auto" and stackable
        if timed:
            mode = self.timer.choose(tuple(sizes.values()))
        calls = model_calls(
            rows,
            batched=mode == "batched" and stackable,
            batch_order=self.passes.batch_order(names),
            micro_batch=self.passes.micro_batch,
        )
        began = clock(inputs.noisy.device) if timed else 0.0
        results = {}
        for call in calls:
            prediction = evaluate(_gather(call, inputs), tuple(branch for branch, _ in call))
            assert len(prediction) == len(call), "the model must return one row per input row"
            results |= dict(zip(call, prediction.split(1)))
        if timed:
            seconds = clock(inputs.noisy.device) - began
            self.timer.record(mode, seconds, tuple(sizes.values()))
        return results, len(calls)

    def _check_finite(self, results: dict[Row, Tensor], inputs: StepInputs) -> None:
        extremes = torch.stack([torch.stack(p.aminmax()) for p in results.values()])
        finite = torch.isfinite(extremes).all(dim=1).tolist()
        if all(finite):
            return
        (branch, sample), prediction = list(results.items())[finite.index(False)]
        frames = self.layout.frames(prediction, inputs.num_frames).flatten(2)
        frame = int(torch.nonzero(~torch.isfinite(frames).all(dim=2)[0])[0])
        raise NonFiniteError(
            f"step {inputs.step}: the {branch} prediction of sample {sample} holds NaN or Inf, "
            f"first in latent frame {frame}. In half precision a lower scale, guidance.rescale, "
            f"guidance.clamp or model.dtype: float32 helps."
        )

    def _combine(
        self,
        needed: list[tuple[str, ...]],
        sources: dict[Row, Row],
        results: dict[Row, Tensor],
        inputs: StepInputs,
    ) -> tuple[Tensor, Spread]:
        """Combine group by group: samples of one rule with the same branches go together."""
        groups: dict[tuple, list[int]] = {}
        for sample, names in enumerate(needed):
            groups.setdefault((self.samples.rules[sample].group_key(), names), []).append(sample)
        pieces, spreads, order = [], [], []
        for (_, names), members in groups.items():
            rows = {branch: [results[sources[branch, s]] for s in members] for branch in names}
            predictions = {b: r[0] if len(r) == 1 else torch.cat(r) for b, r in rows.items()}
            guided, spread = self._combine_group(predictions, members, inputs)
            pieces.append(guided)
            spreads.append(spread)
            order += members
        if len(pieces) == 1:
            return pieces[0], spreads[0]
        back = np.argsort(order)
        before, after = (np.concatenate([s[i] for s in spreads])[back] for i in (0, 1))
        return torch.cat(pieces)[back.tolist()], (before, after)

    def _combine_group(
        self, predictions: dict[str, Tensor], members: list[int], inputs: StepInputs
    ) -> tuple[Tensor, Spread]:
        """Samples of one rule that need the same branches: the guided prediction, its spread."""
        rule = self.samples.rules[members[0]]
        model_dtype = next(iter(predictions.values())).dtype
        out_dtype = self.combine_dtype or model_dtype
        dtype = torch.promote_types(torch.float32, model_dtype)
        if rule.precision == "pipeline":
            dtype = out_dtype
        frames = {
            branch: self.layout.frames(p, inputs.num_frames).to(dtype)
            for branch, p in predictions.items()
        }
        if tuple(frames) == ("cond",):
            gram = gram_of(frames)
            std = np.sqrt(gram.covariance(gram.vector("cond"), gram.vector("cond")))
            return predictions["cond"].to(out_dtype), (std, std)
        # A branch that was left out has coefficient 0: any prediction serves in its place.
        only = next(iter(frames.values()))
        frames = {branch: frames.get(branch, only) for branch in rule.method.branches}
        guided, spread = self._limited(rule, frames, members, inputs)
        return self.layout.restore(guided).to(out_dtype), spread

    def _limited(
        self, rule: Rule, frames: dict[str, Tensor], members: list[int], inputs: StepInputs
    ) -> tuple[Tensor, Spread]:
        """method -> rescale -> threshold -> clamp, and the spread of cond and of the result."""
        base = rule.method.base
        differences = differences_from(base, frames)
        gram = gram_of(frames, base=base, differences=differences)
        combination = rule.method.combination(
            gram.clip() if rule.statistics == "clip" else gram,
            strength_BF=self.samples.strength_BKF[members, inputs.step],
            weight_BF=self.samples.weights_BKF[members, inputs.step],
        )
        if rule.rescale is not None and rule.rescale.amount:
            combination = rule.rescale.apply(combination, gram, statistics=rule.statistics)
        guided = combine(frames, combination, differences=differences)
        cond = gram.vector("cond")
        before = np.sqrt(gram.covariance(cond, cond))
        if rule.threshold is None and rule.clamp is None:
            return guided, (before, frame_std(combination, gram))
        if rule.threshold is not None:
            guided = self._threshold(rule, guided, members, inputs)
        if rule.clamp is not None:
            guided = rule.clamp.apply(guided, statistics=rule.statistics)
        guided = keep_off_frames(guided, frames, combination)
        result = gram_of({"guided": guided})
        after = np.sqrt(result.covariance(result.vector("guided"), result.vector("guided")))
        return guided, (before, after)

    def _threshold(
        self, rule: Rule, guided: Tensor, members: list[int], inputs: StepInputs
    ) -> Tensor:
        """Threshold x0, in float32 or better; elements that it leaves alone keep their bits."""
        if inputs.level is None:
            raise ValueError(
                "guidance.threshold needs the noise level of the scheduler, which this scheduler "
                "does not give. Use guidance.rescale or guidance.clamp."
            )
        alpha, sigma = inputs.level
        wide = torch.promote_types(torch.float32, guided.dtype)
        noisy = self.layout.frames(inputs.noisy[members], inputs.num_frames).to(wide)
        if noisy.shape != guided.shape:  # condition channels stand behind the noisy ones
            noisy = noisy[:, :, : guided.shape[2]]
        level = {"alpha": alpha, "sigma": sigma}
        x0 = convert(guided.to(wide), noisy, inputs.prediction, "sample", **level)
        tamed = rule.threshold.apply(x0, statistics=rule.statistics)
        changed = convert(tamed, noisy, "sample", inputs.prediction, **level).to(guided.dtype)
        return torch.where(tamed == x0, guided, changed)


def equal_rows(tensors: list[Tensor], samples: list[int]) -> list[int]:
    """For each of `samples` the first one whose rows are equal, bit for bit, in all tensors."""
    patterns = [_bit_patterns(tensor) for tensor in tensors]
    # Integer sums wrap and do not depend on their order: equal rows always have equal sums.
    sums = torch.stack([p.sum(dim=1, dtype=torch.int64).cpu() for p in patterns], dim=1).tolist()
    first: dict[tuple, list[int]] = {}
    served = []
    for sample in samples:
        known = first.setdefault(tuple(sums[sample]), [])
        match = next(
            (k for k in known if all(torch.equal(p[k], p[sample]) for p in patterns)), None
        )
        if match is None:
            known.append(sample)
        served.append(sample if match is None else match)
    return served


def _bit_patterns(tensor: Tensor) -> Tensor:
    """The rows of a tensor as integers of the same width."""
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize]
    return tensor.reshape(len(tensor), -1).contiguous().view(width)


def _stackable(branches: tuple[str, ...], inputs: StepInputs) -> bool:
    """Whether the inputs of all branches have the same shapes, so that one call can hold them."""
    shapes = {
        frozenset((name, t.shape[1:]) for name, t in inputs.by_branch[branch].items())
        for branch in branches
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
