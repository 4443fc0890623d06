"""One guided prediction: run the evaluations, combine them per frame, limit the result.

Pure tensor code. The caller gives a function that runs the model and the inputs of every branch;
no pipeline, file or setting is known here. Coefficients are numpy where the surface alone decides
them; what depends on predictions stays on their device, and no step waits for it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.apply import combine
from vidcfg.guidance.gram import HOST, NOISY, gram_of, spread, spread_of
from vidcfg.guidance.layout import SMALL, FrameLayout, per_frame
from vidcfg.guidance.limits import clamp, frame_std
from vidcfg.guidance.passes import (
    Evaluate,
    Passes,
    PassTimer,
    Place,
    Row,
    StepInputs,
    at_places,
    run_rows,
    served_by,
)
from vidcfg.guidance.plan import Memory, SampleRows, SampleStep
from vidcfg.guidance.planes import room
from vidcfg.guidance.prediction import coefficients
from vidcfg.guidance.rule import Vectors
from vidcfg.guidance.trace import StepTrace

ADVICE = (
    "In half precision a lower scale, guidance.rescale, guidance.clamp or model.dtype: float32 "
    "helps."
)


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
            NonFiniteError: if a prediction holds NaN or Inf, naming step, branch and frame; on
                CUDA `check_finite` tells, at the end of a run.
        """
        rules = self.samples.rules
        if memory is None:
            assert not any(r.method.remembers or r.method.may_stop for r in rules), "needs memory"
            memory = Memory()

        # Evaluate: each branch that a sample needs, once for equal rows.
        steps = self.samples.at(inputs.step, memory, inputs.expert)
        sources = served_by(
            [s.branches for s in steps], inputs, share=self.passes.share, told=memory.told
        )
        isolated = frozenset().union(*(rule.method.isolated for rule in rules))
        rows = list(dict.fromkeys(sources.values()))
        results, calls = run_rows(
            rows, inputs, evaluate, self.passes, isolated=isolated, timer=self.timer
        )

        # Combine; NaN and Inf leave their mark on the spread of a frame.
        guided, before, after = self._combine(steps, sources, results, inputs, memory)
        if before.device.type in HOST:
            before, after = before.cpu().numpy(), after.cpu().numpy()
            if not np.isfinite(before + after).all():
                _name_broken(results, inputs, self.layout)

        # What was done.
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
        results: dict[Row, Place],
        inputs: StepInputs,
        memory: Memory,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The guided prediction, the spread before and after."""
        # Together what has the same rule and needs the same branches; large latents, which no one
        # wants to copy, where they come from the same predictions and from nothing else.
        some = next((prediction for prediction, _ in results.values()), None)
        is_small = some is None or some[0].numel() <= SMALL
        groups: dict[tuple, list[SampleStep]] = {}
        for step in steps:
            known = tuple(sorted(step.remembered))
            key = (step.key, step.branches, step.active, known)
            rows = () if is_small else tuple(sources[b, step.sample] for b in step.branches)
            if not is_small and step.method.extras:
                rows = (step.sample,)
            groups.setdefault((*key, rows), []).append(step)

        # One tensor for all, filled group by group, unless one group makes it.
        whole, out, spreads = None, None, {}
        if len(groups) > 1 and some is not None:
            shape, dtype = (len(steps), *some.shape[1:]), self.combine_dtype or some.dtype
            whole = room(some, shape, dtype)
        for members in groups.values():
            group = SampleGroup(members, self.layout, inputs, memory, self.combine_dtype)
            predictions = {
                b: at_places([results[sources[b, m.sample]] for m in members])
                for b in members[0].branches
            }
            samples = [member.sample for member in members]
            if whole is not None:
                in_a_row = samples == list(range(samples[0], samples[-1] + 1))
                out = whole[samples[0] : samples[-1] + 1] if in_a_row else None
            guided, before, after = group.guide(predictions, out)
            if len(groups) == 1:
                return guided, before, after
            if whole is None:
                whole = guided.new_empty((len(steps), *guided.shape[1:]))
            if guided is not out:
                for sample, row in zip(samples, guided):
                    whole[sample] = row
            spreads |= zip(samples, zip(before, after))

        # The spreads, in the order of the batch.
        rows = zip(*(spreads[step.sample] for step in steps))
        return whole, *(torch.stack(each) for each in rows)


def check_finite(steps: Sequence[StepTrace]) -> None:
    """Look at the spread of steps that did not wait for it, at the end of a run.

    Raises:
        NonFiniteError: naming the first step, sample and frame with NaN or Inf.
    """
    waiting = [step for step in steps if isinstance(step.std_cond_BF, Tensor)]
    if not waiting:
        return
    # All of them at once: the device is waited for once a run.
    marks = [~(step.std_cond_BF + step.std_guided_BF).isfinite() for step in waiting]
    found = torch.stack([mark_BF.any() for mark_BF in marks]).tolist()
    if any(found):
        place = found.index(True)
        sample, frame = marks[place].nonzero()[0].tolist()
        raise NonFiniteError(
            f"step {waiting[place].step}: a prediction of sample {sample} holds NaN or Inf, "
            f"first in latent frame {frame}. {ADVICE}"
        )


def _name_broken(results: dict[Row, Place], inputs: StepInputs, layout: FrameLayout) -> None:
    """Name the first frame that holds NaN or Inf."""
    for (branch, sample), (prediction, row) in results.items():
        frames = layout.frames(prediction[row : row + 1], inputs.num_frames).flatten(2)
        broken = torch.nonzero(~torch.isfinite(frames).all(dim=2)[0])
        if len(broken):
            raise NonFiniteError(
                f"step {inputs.step}: the {branch} prediction of sample {sample} holds NaN or "
                f"Inf, first in latent frame {int(broken[0])}. {ADVICE}"
            )


@dataclass(frozen=True, eq=False)
class SampleGroup:
    """Samples of one rule that need the same branches on a step, and what the step brings."""

    members: list[SampleStep]
    layout: FrameLayout
    inputs: StepInputs
    memory: Memory
    combine_dtype: torch.dtype | None

    def guide(
        self, predictions: dict[str, Tensor], out: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """method -> rescale -> threshold -> clamp, in the model's layout: into `out`, if given.

        A prediction of one row is that of every member. Returned beside the result are the
        standard deviations (B, F) of its frames before and after guidance.
        """
        method, guidance = self.members[0].method, self.members[0].guidance
        if method.flow_only and not self.inputs.prediction.startswith("flow"):
            raise ValueError(
                f"guidance.method {method.kind} starts with steps on which nothing moves, which "
                f"is a velocity of zero, but this model predicts {self.inputs.prediction} and not "
                f"a flow. Use zero_init_steps: 0."
            )
        count, num_frames = len(self.members), self.inputs.num_frames
        if not predictions:
            like = self.noisy_frames(None, self.combine_dtype or self.inputs.noisy.dtype)
            none = like.new_zeros((count, num_frames), dtype=torch.float64)
            guided = self.layout.restore(torch.zeros_like(like)) if out is None else out.zero_()
            return guided, none, none

        # Frames of every branch; one that was left out has coefficient 0: any serves in its place.
        only = next(iter(predictions.values()))
        out_dtype = self.combine_dtype or only.dtype
        wide = torch.promote_types(torch.float32, only.dtype)
        dtype = out_dtype if guidance.precision == "pipeline" else wide
        if method.extras or len({len(p) for p in predictions.values()}) > 1:
            # As they lie where each has its own: sums in another order have other last digits.
            rows = predictions.items()
            predictions = {b: p if len(p) == count else torch.cat([p] * count) for b, p in rows}
        frames = {b: self.layout.frames(p, num_frames).to(dtype) for b, p in predictions.items()}
        if not any(self.members[0].active):
            std = spread_of(frames["cond"]).expand(count, -1)
            cond = predictions["cond"].to(out_dtype).expand(count, *only.shape[1:])
            return cond if out is None else out.copy_(cond), std, std
        if out is None:
            out = room(only, (count, *only.shape[1:]), out_dtype)
        some = next(iter(frames.values()))
        frames = {b: frames.get(b, some) for b in dict.fromkeys((*method.branches, method.base))}
        outs = self.layout.frames(out, num_frames)
        guided = outs if dtype == out_dtype else torch.empty_like(outs, dtype=dtype)
        before, after = self._combined(frames, guided)
        if guided is not outs:
            outs.copy_(guided)
        return out, before, after

    def _combined(self, frames: dict[str, Tensor], guided: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the guided frames, and note what is remembered; the spread before and after."""
        method, guidance = self.members[0].method, self.members[0].guidance
        rows = [(m.strength_F, m.weight_F) for m in self.members]
        rows_BF = tuple(np.stack(each) for each in zip(*rows))
        off_BF = method.is_off(*rows_BF)

        # What the rule reads: predictions, vectors of its own, the noisy sample.
        has_rescale = method.is_limited and not guidance.rescale.is_off
        scales_x0 = has_rescale and guidance.rescale.space == "x0"
        rescale_x0 = self._to_x0("guidance.rescale") if scales_x0 else None
        x0 = self._to_x0(f"guidance.method {method.kind}") if method.in_x0 else None
        vectors = {}
        if method.extras:
            vectors = self._extra(frames, 1.0 if x0 is None else x0[1], *rows_BF)
        raw = dict(vectors)
        some = next(iter(frames.values()))
        if x0 is not None or rescale_x0 is not None:
            raw[NOISY] = self.noisy_frames(some, some.dtype)[: len(some)]

        # The coefficients of every frame, with rescale among them.
        gram, is_host = None, guided.device.type in HOST
        if method.needs_gram or has_rescale or (is_host and len(some) < len(guided)):
            gram = gram_of(frames, base=method.base, raw=raw)
            place = {"device": gram.mean.device, "non_blocking": True}
            rows_BF = torch.from_numpy(np.stack(rows_BF)).to(**place)
        own = gram.clip() if method.needs_gram and guidance.statistics == "clip" else gram
        combination = method.coefficients(own, *rows_BF, x0)
        if has_rescale:
            rescale, statistics = guidance.rescale, guidance.statistics
            combination = rescale.apply(combination, gram, statistics=statistics, x0=rescale_x0)

        # The sum, and the limits that act on it.
        has_limits = guidance.threshold is not None or guidance.clamp is not None
        is_tamed = method.is_limited and has_limits
        measured = [] if (gram is None or not is_host) and not is_tamed else None
        given = {"vectors": raw, "out": guided, "off_BF": off_BF, "measured": measured}
        combine(frames, combination, **given)
        if is_tamed:
            self._tame(guided, frames["cond"], off_BF)

        # The spread of every frame, from what is at hand.
        cond = frames["cond"]
        if measured:
            (sums,) = measured
            before, after = spread(sums[..., :2], cond), spread(sums[..., 2:], guided)
        elif not is_host or gram is None:
            before, after = spread_of(cond), spread_of(guided)
        else:
            before = gram.spread("cond")
            after = spread_of(guided) if is_tamed else frame_std(combination, gram)
        kept = {name: vectors[name] for name in method.remembers if name in vectors}
        keys = [(member.sample, self.inputs.expert) for member in self.members]
        self.memory.keep(keys, kept, combination.stop_BF)
        return before.expand(after.shape), after

    def _to_x0(self, what: str) -> tuple[float, float]:
        """(a, b) of x0 = a x_t + b p, which `what` needs."""
        level = self.inputs.known_level(f"{what} in x0", "space: prediction")
        return coefficients(self.inputs.prediction, "sample", *level)

    def _extra(
        self, frames: dict[str, Tensor], x0_scale: float, *rows_BF: np.ndarray
    ) -> dict[str, Tensor]:
        """The vectors that the rule makes of this step's predictions and of what it remembers."""
        kept = {
            name: torch.cat([member.remembered[name] for member in self.members])
            for name in self.members[0].remembered
        }
        grid = self.layout.grid(self.inputs.noisy) or self.inputs.grid
        return self.members[0].method.extra(Vectors(frames, kept, x0_scale, grid, *rows_BF))

    def _tame(self, guided: Tensor, cond: Tensor, off_BF: np.ndarray) -> None:
        """Threshold and clamp the guided frames, which leave frames that are off alone."""
        guidance, whole = self.members[0].guidance, guided
        statistics = guidance.statistics
        if guidance.threshold is not None:
            # On x0, in float32 or better; elements that it leaves alone keep their bits.
            instead = "guidance.rescale or guidance.clamp"
            alpha, sigma = self.inputs.known_level("guidance.threshold", instead)
            wide = torch.promote_types(torch.float32, guided.dtype)
            noisy, kind = self.noisy_frames(guided, wide), self.inputs.prediction
            levels = coefficients(kind, "sample", alpha, sigma)
            levels += coefficients("sample", kind, alpha, sigma)
            guided = guidance.threshold.limit(
                noisy, guided, levels, statistics=statistics, off_BF=off_BF
            )
        if guidance.clamp is not None:
            guided = clamp(guided, guidance.clamp, statistics=statistics)
        off = per_frame(torch.from_numpy(off_BF).to(cond.device, non_blocking=True), cond)
        whole.copy_(torch.where(off, cond, guided) if off_BF.any() else guided)

    def noisy_frames(self, like: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The noisy samples as frames, without the condition channels that stand behind them."""
        picked, noisy = [member.sample for member in self.members], self.inputs.noisy
        if picked != list(range(len(noisy))):
            noisy = noisy[picked]
        frames = self.layout.frames(noisy, self.inputs.num_frames).to(dtype)
        axis = frames.ndim - 1 if self.layout.axes == "tokens" else 2
        channels = self.inputs.num_channels if like is None else like.shape[axis]
        return frames if channels is None else frames.narrow(axis, 0, channels)
