"""One guided prediction: run the evaluations, combine them per frame, limit the result.

Pure tensor code. The caller gives a function that runs the model and the inputs of every branch;
no pipeline, file or setting is known here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import NOISY, differences_from, gram_of, spread_of
from vidcfg.guidance.layout import FrameLayout, per_frame
from vidcfg.guidance.limits import clamp, frame_std
from vidcfg.guidance.passes import (
    Evaluate,
    Passes,
    PassTimer,
    Row,
    StepInputs,
    run_rows,
    served_by,
)
from vidcfg.guidance.plan import Memory, SampleRows, SampleStep
from vidcfg.guidance.prediction import convert, x0_coefficients
from vidcfg.guidance.rule import Vectors
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.shapes import Float
from vidcfg.guidance.trace import StepTrace


class NonFiniteError(RuntimeError):
    """A prediction holds NaN or Inf."""


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

    def predict(
        self, inputs: StepInputs, evaluate: Evaluate, memory: Memory | None = None
    ) -> tuple[Tensor, StepTrace]:
        """The guided prediction, in the model's layout, and what was done for it.

        `memory` is what the rules of this run keep between its steps: read, and updated. None
        serves rules that keep nothing.

        Raises:
            NonFiniteError: if a prediction holds NaN or Inf, naming step, branch and frame.
        """
        rules = self.samples.rules
        if memory is None:
            assert not any(r.method.remembers or r.method.may_stop for r in rules), "needs memory"
            memory = Memory()

        # Evaluate: each branch that a sample needs, once for equal rows.
        steps = self.samples.at(inputs.step, memory, inputs.expert)
        sources = served_by([s.branches for s in steps], inputs, share=self.passes.share)
        isolated = frozenset().union(*(rule.method.isolated for rule in rules))
        rows = list(dict.fromkeys(sources.values()))
        results, calls = run_rows(
            rows, inputs, evaluate, self.passes, isolated=isolated, timer=self.timer
        )
        _check_finite(results, inputs, self.layout)

        guided, before, after = self._combine(steps, sources, results, inputs, memory)
        trace = StepTrace(
            step=inputs.step,
            sigma=inputs.sigma,
            expert=inputs.expert,
            strength_BF=np.stack([np.atleast_2d(step.strength_F)[0] for step in steps]),
            evaluations=dict(Counter(branch for branch, _ in results)),
            calls=calls,
            std_cond_BF=before,
            std_guided_BF=after,
            terms=tuple(
                dict(zip(rule.term_names(), step.strength_F)) if step.strength_F.ndim > 1 else None
                for rule, step in zip(rules, steps)
            ),
        )
        return guided, trace

    def _combine(
        self,
        steps: list[SampleStep],
        sources: dict[Row, Row],
        results: dict[Row, Tensor],
        inputs: StepInputs,
        memory: Memory,
    ) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """The guided prediction, the spread before and after."""
        # Together what has the same rule and needs the same branches.
        groups: dict[tuple, list[SampleStep]] = {}
        for step in steps:
            known = tuple(sorted(step.remembered))
            key = (step.guidance.group_key(), step.method.key, step.branches, step.active, known)
            groups.setdefault(key, []).append(step)
        outcomes = []
        for members in groups.values():
            served = {
                b: [results[sources[b, m.sample]] for m in members] for b in members[0].branches
            }
            predictions = {b: r[0] if len(r) == 1 else torch.cat(r) for b, r in served.items()}
            group = SampleGroup(members, self.layout, inputs, self.combine_dtype)
            outcomes.append(group.guide(predictions))
            if outcomes[-1].vectors or outcomes[-1].stop_BF is not None:
                outcomes[-1].keep(memory, members, inputs.expert)

        # Back into the order of the batch.
        back = np.argsort([m.sample for members in groups.values() for m in members])
        before, after = (
            np.concatenate([getattr(outcome, name) for outcome in outcomes])[back]
            for name in ("std_cond_BF", "std_guided_BF")
        )
        guided = outcomes[0].guided
        if len(outcomes) > 1:
            guided = torch.cat([outcome.guided for outcome in outcomes])[back.tolist()]
        return guided, before, after


def _check_finite(results: dict[Row, Tensor], inputs: StepInputs, layout: FrameLayout) -> None:
    if not results:
        return
    extremes = torch.stack([torch.stack(p.aminmax()) for p in results.values()])
    finite = torch.isfinite(extremes).all(dim=1).tolist()
    if all(finite):
        return
    (branch, sample), prediction = list(results.items())[finite.index(False)]
    frames = layout.frames(prediction, inputs.num_frames).flatten(2)
    frame = int(torch.nonzero(~torch.isfinite(frames).all(dim=2)[0])[0])
    raise NonFiniteError(
        f"step {inputs.step}: the {branch} prediction of sample {sample} holds NaN or Inf, "
        f"first in latent frame {frame}. In half precision a lower scale, guidance.rescale, "
        f"guidance.clamp or model.dtype: float32 helps."
    )


@dataclass(frozen=True, eq=False)
class GuidedGroup:
    """The guided prediction of a group, the spread of its frames, and what is remembered.

    `std_cond_BF`, `std_guided_BF` are standard deviations before and after guidance; `vectors` has
    a row per sample, and `stop_BF` marks the frames where the rule ends.
    """

    guided: Tensor
    std_cond_BF: np.ndarray
    std_guided_BF: np.ndarray
    vectors: dict[str, Tensor]
    stop_BF: np.ndarray | None = None

    def keep(self, memory: Memory, members: list[SampleStep], expert: str | None) -> None:
        """Note, per sample, the vectors to keep and the frames that are off from here on."""
        for i, member in enumerate(members):
            key = (member.sample, expert)
            if self.vectors:
                kept = {name: vector[i : i + 1] for name, vector in self.vectors.items()}
                memory.vectors[key] = member.remembered | kept
            if self.stop_BF is not None and self.stop_BF[i].any():
                memory.stopped[key] = memory.stopped.get(key, False) | self.stop_BF[i]


@dataclass(frozen=True, eq=False)
class SampleGroup:
    """Samples of one rule that need the same branches on a step, and what the step brings."""

    members: list[SampleStep]
    layout: FrameLayout
    inputs: StepInputs
    combine_dtype: torch.dtype | None = None

    def guide(self, predictions: dict[str, Tensor]) -> GuidedGroup:
        """method -> rescale -> threshold -> clamp; the prediction is in the model's layout."""
        method, guidance = self.members[0].method, self.members[0].guidance
        if method.flow_only and not self.inputs.prediction.startswith("flow"):
            raise ValueError(
                f"guidance.method {method.kind} starts with steps on which nothing moves, which "
                f"is a velocity of zero, but this model predicts {self.inputs.prediction} and not "
                f"a flow. Use zero_init_steps: 0."
            )
        if not predictions:
            like = self.noisy_frames(None, self.combine_dtype or self.inputs.noisy.dtype)
            none = np.zeros(like.shape[:2])
            return GuidedGroup(self.layout.restore(torch.zeros_like(like)), none, none, {})

        # Frames of every branch; one that was left out has coefficient 0: any serves in its place.
        only = next(iter(predictions.values()))
        out_dtype = self.combine_dtype or only.dtype
        wide = torch.promote_types(torch.float32, only.dtype)
        dtype = out_dtype if guidance.precision == "pipeline" else wide
        frames = {
            branch: self.layout.frames(p, self.inputs.num_frames).to(dtype)
            for branch, p in predictions.items()
        }
        if not any(self.members[0].active):
            std = spread_of(frames["cond"])
            return GuidedGroup(predictions["cond"].to(out_dtype), std, std, {})
        some = next(iter(frames.values()))
        frames = {b: frames.get(b, some) for b in dict.fromkeys((*method.branches, method.base))}
        guided, *rest = self._combined(frames)
        return GuidedGroup(self.layout.restore(guided).to(out_dtype), *rest)

    def _combined(self, frames: dict[str, Tensor]) -> tuple:
        """The guided frames, the spread before and after, what to remember, where to stop."""
        method, guidance = self.members[0].method, self.members[0].guidance
        strength_BF, weight_BF = (
            np.stack([getattr(member, name) for member in self.members])
            for name in ("strength_F", "weight_F")
        )

        # What the rule reads: differences, vectors of its own, the noisy sample.
        has_rescale = method.is_limited and not guidance.rescale.is_off
        rescale_x0 = None
        if has_rescale and guidance.rescale.space == "x0":
            level = self._level("guidance.rescale in x0", "space: prediction")
            rescale_x0 = x0_coefficients(self.inputs.prediction, *level)
        differences = differences_from(method.base, frames)
        x0 = None
        if method.in_x0:
            level = self._level(f"guidance.method {method.kind} in x0", "space: prediction")
            x0 = x0_coefficients(self.inputs.prediction, *level)
        vectors = {}
        if method.extras:
            scale = 1.0 if x0 is None else x0[1]
            vectors = self._extra(differences, scale, strength_BF, weight_BF)
        raw = dict(vectors)
        if x0 is not None or rescale_x0 is not None:
            some = next(iter(frames.values()))
            raw[NOISY] = self.noisy_frames(some, some.dtype)

        # The coefficients of every frame, with rescale among them.
        gram = None
        if method.needs_gram or has_rescale:
            gram = gram_of(frames, base=method.base, differences=differences, raw=raw)
        own = gram.clip() if method.needs_gram and guidance.statistics == "clip" else gram
        combination = method.coefficients(own, strength_BF, weight_BF, x0)
        if has_rescale:
            rescale, statistics = guidance.rescale, guidance.statistics
            combination = rescale.apply(combination, gram, statistics=statistics, x0=rescale_x0)

        # The sum, and the limits that act on it.
        guided = combine(frames, combination, differences=differences, vectors=raw)
        has_limits = guidance.threshold is not None or guidance.clamp is not None
        is_tamed = method.is_limited and has_limits
        if is_tamed:
            guided = self._tamed(guidance, guided, frames, combination)
        if gram is None:
            before = spread_of(frames["cond"])
        else:
            cond = gram.vector("cond")
            before = np.sqrt(np.maximum(gram.covariance(cond, cond), 0.0))
        after = spread_of(guided) if gram is None or is_tamed else frame_std(combination, gram)
        kept = {name: vectors[name] for name in method.remembers if name in vectors}
        return guided, before, after, kept, combination.stop_BF

    def _extra(
        self,
        differences: dict[str, Tensor],
        x0_scale: float,
        strength_BF: np.ndarray,
        weight_BF: np.ndarray,
    ) -> dict[str, Tensor]:
        """The vectors that the rule makes of this step's differences and of what it remembers."""
        method = self.members[0].method
        kept = {
            name: torch.cat([member.remembered[name] for member in self.members])
            for name in self.members[0].remembered
        }
        grid = self.layout.grid(self.inputs.noisy) or self.inputs.grid
        rows = (strength_BF, weight_BF)
        return method.extra(Vectors(method.base, differences, kept, x0_scale, grid, *rows))

    def _tamed(
        self,
        guidance: Guidance,
        guided: Tensor,
        frames: dict[str, Tensor],
        combination: Combination,
    ) -> Tensor:
        """The guided frames after threshold and clamp, which leave frames that are off alone."""
        statistics = guidance.statistics
        if guidance.threshold is not None:
            # On x0, in float32 or better; elements that it leaves alone keep their bits.
            alpha, sigma = self._level("guidance.threshold", "guidance.rescale or guidance.clamp")
            wide = torch.promote_types(torch.float32, guided.dtype)
            noisy, kind = self.noisy_frames(guided, wide), self.inputs.prediction
            level = {"alpha": alpha, "sigma": sigma}
            x0 = convert(guided.to(wide), noisy, kind, "sample", **level)
            tamed = guidance.threshold.apply(x0, statistics=statistics)
            changed = convert(tamed, noisy, "sample", kind, **level).to(guided.dtype)
            guided = torch.where(tamed == x0, guided, changed)
        if guidance.clamp is not None:
            guided = clamp(guided, guidance.clamp, statistics=statistics)
        return keep_off_frames(guided, frames, combination)

    def noisy_frames(self, like: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The noisy samples as frames, without the condition channels that stand behind them."""
        picked, noisy = [member.sample for member in self.members], self.inputs.noisy
        if picked != list(range(len(noisy))):
            noisy = noisy[picked]
        frames = self.layout.frames(noisy, self.inputs.num_frames).to(dtype)
        axis = frames.ndim - 1 if self.layout.axes == "tokens" else 2
        channels = self.inputs.num_channels if like is None else like.shape[axis]
        return frames if channels is None else frames.narrow(axis, 0, channels)

    def _level(self, what: str, instead: str) -> tuple[float, float]:
        """(alpha, sigma) of this step.

        Raises:
            ValueError: if the scheduler does not tell it.
        """
        if self.inputs.level is None:
            raise ValueError(
                f"{what} needs the noise level of the scheduler, which this scheduler does not "
                f"give. Use {instead}."
            )
        return self.inputs.level


def combine(
    predictions: Mapping[str, Float[Tensor, "B F ..."]],
    combination: Combination,
    *,
    differences: dict[str, Float[Tensor, "B F ..."]] | None = None,
    vectors: Mapping[str, Float[Tensor, "B F ..."]] | None = None,
) -> Float[Tensor, "B F ..."]:
    """The guided prediction, a new (B, F, ...) tensor in the dtype of the predictions.

    Each operation is rounded to that dtype as the stock pipelines do: for bfloat16 predictions the
    products are taken in float32 and rounded, which is what a Python scalar times a tensor does.
    A frame marked off is a copy of `cond`. `differences` from the base branch are used where they
    are at hand; they are overwritten. `vectors` are those that `extra_BF` names.
    """
    base = predictions[combination.base]
    if differences is None:
        differences = differences_from(combination.base, predictions)
    guided = base if combination.gain_BF is None else _scale(base.clone(), combination.gain_BF)
    for branch, delta in combination.delta_BF.items():
        guided = _scale(differences[branch], delta).add_(guided)
    for name, values in combination.extra_BF.items():
        guided = _scale(vectors[name].clone(), values).add_(guided)
    if combination.factor_BF is not None:
        guided = _scale(guided, combination.factor_BF)
    if guided is base:
        guided = base.clone()
    has_off = combination.off_BF.any()
    return keep_off_frames(guided, predictions, combination) if has_off else guided


def keep_off_frames(
    guided: Tensor, predictions: Mapping[str, Tensor], combination: Combination
) -> Tensor:
    """`guided` with the frames that are off overwritten by a copy of `cond`."""
    samples, frames = (index.tolist() for index in np.nonzero(combination.off_BF))
    if samples:
        guided[samples, frames] = predictions["cond"][samples, frames]
    return guided


def _scale(frames: Tensor, values_BF: np.ndarray) -> Tensor:
    """`frames` multiplied in place by one number per frame, held in float32 or better."""
    wide = torch.promote_types(frames.dtype, torch.float32)
    values = torch.from_numpy(np.ascontiguousarray(values_BF)).to(wide).to(frames.device)
    return frames.mul_(per_frame(values, frames))
