"""What each sample needs on each step, and what a run therefore costs. numpy only.

Evaluations are left out where a coefficient is zero and shared where equal. The denoiser executes
what is counted here, as the trace of a run shows; only where different strengths happen to give
equal predictions (cond and uncond see the same text) does it find more to share than the plan can
know.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from vidcfg.guidance.rule import Level, Method
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.surface import Surface


@dataclass
class Memory:
    """What the rules of one run keep from step to step: one for each run, made when it begins.

    Keyed by sample and by expert, so that no sample sees another's and a model that takes over
    starts afresh. `vectors` are tensors (momentum) by the names in `Method.remembers`, `stopped`
    marks the frames (and terms) whose guidance has ended. `told` is which rows were found equal.
    """

    vectors: dict[tuple[int, str | None], dict[str, Any]] = field(default_factory=dict)
    stopped: dict[tuple[int, str | None], np.ndarray] = field(default_factory=dict)
    told: dict[tuple, tuple] = field(default_factory=dict)

    def keep(self, keys: Sequence[tuple], vectors: Mapping[str, Any], stop_BF: Any) -> None:
        """Note the rows of these vectors, and which frames are off from here on (None: none)."""
        stops = None if stop_BF is None else stop_BF.cpu().numpy()
        for i, key in enumerate(keys):
            if vectors:
                rows = {name: vector[i : i + 1] for name, vector in vectors.items()}
                self.vectors[key] = self.vectors.get(key, {}) | rows
            if stops is not None and stops[i].any():
                self.stopped[key] = self.stopped.get(key, False) | stops[i]


@dataclass(frozen=True, eq=False)
class SampleStep:
    """One sample on one step: its setting, the rule and strengths in force, and what they decide.

    `branches` are those it needs, in the method's own order, `tags` what the strengths tell the
    model itself in each, `active` whether each term does something to some frame, and `moves` how
    far each branch moves the result, None where that is `cond`. Samples of one `key` differ in
    nothing but strengths. `remembered` are vectors of earlier steps.
    """

    sample: int
    guidance: Guidance
    method: Method
    strength_F: np.ndarray
    weight_F: np.ndarray
    key: tuple
    branches: tuple[str, ...]
    tags: tuple[object, ...]
    active: tuple[bool, ...]
    moves: tuple | None
    remembered: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SampleRows:
    """The setting of every sample of a batch and its strengths: row [k] of each is step k's.

    Strengths and weights have one entry per sample: (K, F), or (K, N, F) for a rule of N terms.
    `experts` names the model of each step (None: one model); `levels` are the noise levels before
    and after each step, for rules that depend on both; `always` are branches that run on every
    step.
    """

    rules: tuple[Guidance, ...]
    strength_BKF: Sequence[np.ndarray] | np.ndarray
    weights_BKF: Sequence[np.ndarray] | np.ndarray
    experts: tuple[str, ...] | None = None
    levels: tuple[tuple[Level, Level], ...] | None = None
    always: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        rules: Sequence[Guidance],
        surfaces: Sequence[tuple[Surface, ...]],
        *,
        first_step: int = 0,
        **run: Any,
    ) -> "SampleRows":
        """From the surfaces of every sample, one per term of its rule.

        Steps before `first_step` do not run: their rows are off, whatever the surface.
        """
        rows = []
        for name, off in (("strength_KF", 1.0), ("weights_KF", 0.0)):
            started = np.arange(len(surfaces[0][0].progress_K))[:, None] >= first_step
            parts = (
                [np.where(started, getattr(surface, name), off) for surface in terms]
                for terms in surfaces
            )
            rows.append(tuple(p[0] if len(p) == 1 else np.stack(p, axis=1) for p in parts))
        return cls(tuple(rules), *rows, **run)

    @classmethod
    def joined(cls, parts: Sequence["SampleRows"]) -> "SampleRows":
        """The samples of several batches, of runs that differ in nothing else."""
        assert len({part.num_steps for part in parts}) == 1, "different numbers of steps"
        names = ("rules", "strength_BKF", "weights_BKF")
        rows = {n: tuple(row for part in parts for row in getattr(part, n)) for n in names}
        return replace(parts[0], **rows)

    @property
    def num_steps(self) -> int:
        return len(self.strength_BKF[0])

    @cached_property
    def steps(self) -> tuple[tuple[SampleStep, ...], ...]:
        """Every sample on every step, unless its rule has stopped by then."""
        run = {"experts": self.experts, "levels": self.levels}
        found = []
        for b, values in enumerate(zip(self.strength_BKF, self.weights_BKF)):
            methods = self.rules[b].method.steps(*values, **run)
            found.append(tuple(self._step(b, *each) for each in zip(methods, *values)))
        return tuple(found)

    def _step(
        self, sample: int, method: Method, strength_F: np.ndarray, weight_F: np.ndarray
    ) -> SampleStep:
        """All that the strengths and weights of a sample decide on a step."""
        values, moves = (strength_F, weight_F), None
        needed = method.required(*values) | self.always
        known = dict.fromkeys((*method.branches, *sorted(self.always)))
        branches = tuple(branch for branch in known if branch in needed)
        tags = tuple(method.tag(branch, *values) for branch in branches)
        terms = method.rows(*values) if len(method.terms) > 1 else [(method, *values)]
        active = tuple(not term.is_off(*own).all() for term, *own in terms)
        if any(active):
            deltas = method.deltas(*values).items()
            moves = tuple((branch, tuple(amounts.tolist())) for branch, amounts in deltas)
        rule = self.rules[sample]
        limits = (rule.rescale, rule.threshold, rule.clamp)
        key = (method.key, *limits, rule.statistics, rule.precision)
        return SampleStep(sample, rule, method, *values, key, branches, tags, active, moves)

    def sources(self) -> dict[str, str]:
        """The text of each branch that some sample needs, those that see cond's left out.

        Raises:
            ValueError: where two rules read a branch from different texts.
        """
        found: dict[str, str] = {}
        for rule, steps in zip(self.rules, self.steps):
            needed = {branch for step in steps for branch in step.branches}
            for branch, source in ({"uncond": "negative"} | rule.method.sources()).items():
                if branch not in needed or source == "cond":
                    continue
                if found.setdefault(branch, source) != source:
                    raise ValueError(
                        f"the samples of this batch use rules whose {branch} branch sees "
                        f"different texts ({found[branch]} and {source} prompt). "
                        "Render them in two calls."
                    )
        return found

    def at(self, step: int, memory: Memory, expert: str | None) -> list[SampleStep]:
        """Every sample on one step; where its rule has stopped the strength is 1, the weight 0."""
        found = []
        for b, steps in enumerate(self.steps):
            one, stopped = steps[step], memory.stopped.get((b, expert))
            if stopped is not None:
                rows = np.where(stopped, 1.0, one.strength_F), np.where(stopped, 0.0, one.weight_F)
                one = self._step(b, one.method, *rows)
            remembered = memory.vectors.get((b, expert))
            found.append(replace(one, remembered=remembered) if remembered else one)
        return found


@dataclass(frozen=True)
class RunPlan:
    """Evaluations by branch for each model call of the scheduler; `naive` is two for each sample.

    `per_step` has one entry per step, two for a step of a second-order scheduler. `is_upper_bound`
    tells that a rule may stop by itself while it runs, after which fewer evaluations are made.
    """

    per_step: tuple[dict[str, int], ...]
    naive: int
    is_upper_bound: bool = False

    @property
    def evaluations(self) -> dict[str, int]:
        """Evaluations of the whole run, by branch."""
        return added_up(self.per_step)

    @property
    def total(self) -> int:
        """All evaluations of the run."""
        return sum(self.evaluations.values())


def added_up(steps: Sequence[dict[str, int]]) -> dict[str, int]:
    """The counts of several steps together, by branch."""
    return dict(sum(map(Counter, steps), Counter()))


def plan_run(
    samples: SampleRows,
    *,
    starts: Sequence[object] | None = None,
    texts: Sequence[Mapping[str, object]] | None = None,
    share: bool = True,
    evaluations_per_step: tuple[int, ...] | None = None,
) -> RunPlan:
    """The evaluations of a batch of samples.

    `starts` identify the initial noise of each sample, and `texts` the text that each of its
    branches sees; None where all have the same. Two samples are on the same trajectory while
    these, their rule and all that the strengths of the steps so far decide coincide; a branch is
    then evaluated once for both. `evaluations_per_step` is the count of each step, which is 2
    for second-order schedulers such as Heun (whose last step takes one); None: 1.
    """
    # Where each sample starts, and the calls of each step.
    num_samples, by_step = len(samples.rules), list(zip(*samples.steps))
    starts = [0] * num_samples if starts is None else starts
    texts = [{}] * num_samples if texts is None else texts
    trajectories: list[object] = list(starts if share else range(num_samples))
    counts = evaluations_per_step or (1,) * len(by_step)

    # Step by step: an evaluation for each trajectory, which parts where the results do.
    known: dict[tuple, int] = {}
    per_step = []
    for steps, count in zip(by_step, counts):
        for _ in range(count):
            wanted: dict[tuple, None] = {}
            for i, step in enumerate(steps):
                texts_seen = (texts[i].get(branch) for branch in step.branches)
                seen = tuple(zip(step.branches, zip(texts_seen, step.tags)))
                wanted |= {(branch, trajectories[i], given): None for branch, given in seen}
                effect = None if step.moves is None else (step.key, step.moves)
                path = (trajectories[i], seen, effect)
                trajectories[i] = ("after", known.setdefault(path, len(known)))
            per_step.append(dict(Counter(branch for branch, _, _ in wanted)))
    may_stop = any(rule.method.may_stop for rule in samples.rules)
    return RunPlan(tuple(per_step), 2 * num_samples * len(per_step), may_stop)
