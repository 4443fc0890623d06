"""What each sample needs on each step, and what a run therefore costs. numpy only.

Evaluations are left out where a coefficient is zero and shared where equal. The denoiser executes
what is counted here, as the trace of a run shows; only where different strengths happen to give
equal predictions (cond and uncond see the same text) does it find more to share than the plan can
know.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from vidcfg.guidance.rule import Level, Method
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.surface import Surface


def required_branches(
    method: Method,
    strength_F: np.ndarray,
    weight_F: np.ndarray,
    always: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """The branches one sample needs on one step, in the method's own order.

    Those in `always` run whatever the strengths, as the second output of a model needs it.
    """
    needed = method.required(strength_F, weight_F) | always
    return tuple(branch for branch in method.branches if branch in needed)


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


@dataclass(frozen=True, eq=False)
class SampleStep:
    """One sample on one step: its setting, the rule and strengths in force, what it needs.

    `active` tells of each term whether it does something to some frame.
    """

    sample: int
    guidance: Guidance
    method: Method
    strength_F: np.ndarray
    weight_F: np.ndarray
    branches: tuple[str, ...]
    active: tuple[bool, ...]
    remembered: dict[str, Any]


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

    @property
    def num_steps(self) -> int:
        return len(self.strength_BKF[0])

    @cached_property
    def methods(self) -> tuple[tuple[Method, ...], ...]:
        """The rule of every sample on every step."""
        rows = zip(self.rules, self.strength_BKF, self.weights_BKF)
        run = {"experts": self.experts, "levels": self.levels}
        return tuple(rule.method.steps(strength, weight, **run) for rule, strength, weight in rows)

    @cached_property
    def branches(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """What every sample needs on every step, unless its rule has stopped by then."""
        samples = zip(self.methods, self.strength_BKF, self.weights_BKF)
        return tuple(
            tuple(required_branches(*step, self.always) for step in zip(*sample))
            for sample in samples
        )

    def sources(self) -> dict[str, str]:
        """The text of each branch that some sample needs, those that see cond's left out.

        Raises:
            ValueError: where two rules read a branch from different texts.
        """
        found: dict[str, str] = {}
        for rule, steps in zip(self.rules, self.branches):
            needed = set().union(*steps)
            for branch, source in rule.method.sources().items():
                if branch not in needed or source == "cond":
                    continue
                if found.setdefault(branch, source) != source:
                    raise ValueError(
                        f"the samples of this batch use rules whose {branch} branch sees "
                        f"different texts ({found[branch]} and {source} prompt). "
                        "Render them in two calls."
                    )
        return found

    def rows(self, starts: Sequence[object], texts: Sequence[tuple]) -> list["RunRow"]:
        """Every sample as a row of a plan: a start for each noise, texts for each branch."""
        return [
            RunRow(
                method=rule.method,
                strength_KF=self.strength_BKF[b],
                weights_KF=self.weights_BKF[b],
                start=starts[b],
                texts=texts[b],
                rule=rule.group_key(),
                experts=self.experts,
                always=self.always,
            )
            for b, rule in enumerate(self.rules)
        ]

    def at(self, step: int, memory: Memory, expert: str | None) -> list[SampleStep]:
        """Every sample on one step; where its rule has stopped the strength is 1, the weight 0."""
        found = []
        for b, rule in enumerate(self.rules):
            method = self.methods[b][step]
            strength, weight = self.strength_BKF[b][step], self.weights_BKF[b][step]
            stopped = memory.stopped.get((b, expert))
            if stopped is not None:
                strength, weight = np.where(stopped, 1.0, strength), np.where(stopped, 0.0, weight)
                branches = required_branches(method, strength, weight, self.always)
            else:
                branches = self.branches[b][step]
            active = method.active(strength, weight)
            kept = memory.vectors.get((b, expert), {})
            found.append(SampleStep(b, rule, method, strength, weight, branches, active, kept))
        return found


@dataclass(frozen=True, eq=False)
class RunRow:
    """One sample of a batch: its strengths and weights, and what makes it the same as another.

    Strengths and weights are (K, F), or (K, N, F) for a rule of N terms. `start` identifies the
    initial noise (seed), `texts` the text that each branch sees, and `rule` everything else that
    decides the guided prediction (limits, statistics). `experts` names the model of each step,
    `always` the branches that run on every one.
    """

    method: Method
    strength_KF: np.ndarray
    weights_KF: np.ndarray
    start: object = None
    texts: tuple[tuple[str, object], ...] = ()
    rule: object = None
    experts: tuple[str, ...] | None = None
    always: frozenset[str] = frozenset()


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
    rows: list[RunRow],
    *,
    share: bool = True,
    evaluations_per_step: int | tuple[int, ...] = 1,
) -> RunPlan:
    """The evaluations of a batch of samples, which have the same number of steps.

    Two samples are on the same trajectory while their start, texts, rule and all that the
    strengths of the steps so far decide coincide; a branch is then evaluated once for both.
    `evaluations_per_step` is 2 for second-order schedulers such as Heun (whose last step takes
    one), or the count of each step.
    """
    # Where each sample starts, and its rule and the calls of each step.
    num_steps = len(rows[0].strength_KF) if rows else 0
    assert all(len(row.strength_KF) == num_steps for row in rows), "different numbers of steps"
    trajectories: list[object] = [row.start if share else i for i, row in enumerate(rows)]
    texts = [dict(row.texts) for row in rows]
    methods = [
        row.method.steps(row.strength_KF, row.weights_KF, experts=row.experts) for row in rows
    ]
    counts = evaluations_per_step
    if isinstance(counts, int):
        counts = (counts,) * (num_steps - 1) + (1,)

    # Step by step: an evaluation for each trajectory, which parts where the results do.
    known: dict[tuple, int] = {}
    per_step = []
    for k in range(num_steps):
        steps = [_step(row, method[k], k) for row, method in zip(rows, methods)]
        for _ in range(counts[k]):
            wanted: dict[tuple, None] = {}
            for i, (branches, tags, effect) in enumerate(steps):
                texts_seen = (texts[i].get(branch) for branch in branches)
                seen = tuple(zip(branches, zip(texts_seen, tags)))
                wanted |= {(branch, trajectories[i], given): None for branch, given in seen}
                path = (trajectories[i], seen, effect)
                trajectories[i] = ("after", known.setdefault(path, len(known)))
            per_step.append(dict(Counter(branch for branch, _, _ in wanted)))
    may_stop = any(row.method.may_stop for row in rows)
    return RunPlan(tuple(per_step), 2 * len(rows) * len(per_step), may_stop)


def _step(row: RunRow, method: Method, k: int) -> tuple[tuple[str, ...], tuple, tuple | None]:
    """The branches of one sample on step k, what its strengths tell the model in each, and what
    makes its result; None where that is `cond`."""
    strength_F, weight_F = row.strength_KF[k], row.weights_KF[k]
    branches = required_branches(method, strength_F, weight_F, row.always)
    tags = tuple(method.tag(branch, strength_F, weight_F) for branch in branches)
    if not any(method.active(strength_F, weight_F)):
        return branches, tags, None
    deltas = method.deltas(strength_F, weight_F)
    moves = tuple((branch, tuple(values.tolist())) for branch, values in deltas.items())
    return branches, tags, (method.key, row.rule, moves)
