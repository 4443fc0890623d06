"""One guided prediction: plan the evaluations, run them, combine them per frame, limit the result.

Pure tensor code. The caller gives a function that runs the model and the inputs of every branch;
no pipeline, file or setting is known here.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.apply import Group, Outcome, guide_group
from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.passes import PassTimer, Row, clock, model_calls
from vidcfg.guidance.samples import Memory, SampleRows, SampleStep, sample_steps
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
        grid: height and width of a frame in tokens, for the layout "tokens" (else known).
        num_channels: channels of a prediction, where the noisy sample has more.
    """

    shared: Mapping[str, Tensor]
    by_branch: Mapping[str, Mapping[str, Tensor]]
    num_frames: int
    step: int
    sigma: float | None = None
    level: tuple[float, float] | None = None
    prediction: str = "flow"
    expert: str | None = None
    grid: tuple[int, int] | None = None
    num_channels: int | None = None

    @property
    def noisy(self) -> Tensor:
        return next(iter(self.shared.values()))

    def rows(self, branch: str) -> dict[str, Tensor]:
        """All inputs of one branch."""
        return dict(self.shared) | dict(self.by_branch[branch])


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
        steps = sample_steps(self.samples, inputs.step, memory, inputs.expert)
        sources = self._sources([step.branches for step in steps], inputs)
        results, calls = self._run(sources, inputs, evaluate)
        self._check_finite(results, inputs)
        guided, before, after = self._combine(steps, sources, results, inputs, memory)
        names = [rule.term_names() for rule in rules]
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
                dict(zip(terms, step.strength_F)) if len(terms) > 1 else None
                for terms, step in zip(names, steps)
            ),
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
        isolated = frozenset().union(*(rule.method.isolated for rule in self.samples.rules))
        sizes = Counter(branch for branch, _ in rows if branch not in isolated)
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
            isolated=isolated,
        )
        apart = next((i for i, call in enumerate(calls) if call[0][0] in isolated), len(calls))
        began = clock(inputs.noisy.device) if timed else 0.0
        results = _evaluated(calls[:apart], inputs, evaluate)
        if timed:
            seconds = clock(inputs.noisy.device) - began
            self.timer.record(mode, seconds, tuple(sizes.values()))
        results |= _evaluated(calls[apart:], inputs, evaluate)
        return results, len(calls)

    def _check_finite(self, results: dict[Row, Tensor], inputs: StepInputs) -> None:
        if not results:
            return
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
        steps: list[SampleStep],
        sources: dict[Row, Row],
        results: dict[Row, Tensor],
        inputs: StepInputs,
        memory: Memory,
    ) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Combine group by group: the guided prediction, the spread before and after."""
        groups: dict[tuple, list[SampleStep]] = {}
        for step in steps:
            groups.setdefault(step.group_key(), []).append(step)
        outcomes, order = [], []
        for members in groups.values():
            picked = [member.sample for member in members]
            rows = {
                branch: [results[sources[branch, s]] for s in picked]
                for branch in members[0].branches
            }
            predictions = {b: r[0] if len(r) == 1 else torch.cat(r) for b, r in rows.items()}
            outcome = guide_group(self._group(members, inputs), predictions, self.combine_dtype)
            _remember(memory, members, outcome, inputs.expert)
            outcomes.append(outcome)
            order += picked
        if len(outcomes) == 1:
            return outcomes[0].guided, outcomes[0].std_cond_BF, outcomes[0].std_guided_BF
        back = np.argsort(order)
        before = np.concatenate([outcome.std_cond_BF for outcome in outcomes])[back]
        after = np.concatenate([outcome.std_guided_BF for outcome in outcomes])[back]
        return torch.cat([o.guided for o in outcomes])[back.tolist()], before, after

    def _group(self, members: list[SampleStep], inputs: StepInputs) -> Group:
        picked = [member.sample for member in members]
        everyone = picked == list(range(len(inputs.noisy)))
        return Group(
            members=members,
            layout=self.layout,
            num_frames=inputs.num_frames,
            noisy=inputs.noisy if everyone else inputs.noisy[picked],
            level=inputs.level,
            prediction=inputs.prediction,
            grid=self.layout.grid(inputs.noisy) or inputs.grid,
            num_channels=inputs.num_channels,
        )


def _remember(
    memory: Memory, members: list[SampleStep], outcome: Outcome, expert: str | None
) -> None:
    """Note, per sample, the vectors to keep and the frames that are off from here on."""
    for i, member in enumerate(members):
        key = (member.sample, expert)
        if outcome.vectors:
            kept = {name: vector[i : i + 1] for name, vector in outcome.vectors.items()}
            memory.vectors[key] = member.remembered | kept
        if outcome.stop_BF is not None and outcome.stop_BF[i].any():
            memory.stopped[key] = memory.stopped.get(key, False) | outcome.stop_BF[i]


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


def _evaluated(
    calls: list[list[Row]], inputs: StepInputs, evaluate: Evaluate
) -> dict[Row, Tensor]:
    """The predictions of the rows of some model calls."""
    results = {}
    for call in calls:
        prediction = evaluate(_gather(call, inputs), tuple(branch for branch, _ in call))
        assert len(prediction) == len(call), "the model must return one row per input row"
        results |= dict(zip(call, prediction.split(1)))
    return results


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
