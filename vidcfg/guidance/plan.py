"""Which model evaluations a run needs: left out where a coefficient is zero, shared where equal.

numpy only, so that a cost can be printed without a model. The denoiser executes what is counted
here, as the trace of a run shows; only where different strengths happen to give equal predictions
(cond and uncond see the same text) does it find more to share than the plan can know.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from vidcfg.guidance.rules.base import Method


@dataclass(frozen=True, eq=False)
class RunRow:
    """One sample of a batch: its strengths and weights, and what makes it the same as another.

    Strengths and weights are (K, F), or (K, N, F) for a rule of N terms. `start` identifies the
    initial noise (seed), `texts` the text that each branch sees, and `rule` everything else that
    decides the guided prediction (limits, statistics). `experts` names the model of each step;
    branches in `always` run on every step.
    """

    method: Method
    strength_KF: np.ndarray
    weights_KF: np.ndarray
    start: object = None
    texts: tuple[tuple[str, object], ...] = ()
    rule: object = None
    experts: tuple[str, ...] | None = None
    always: tuple[str, ...] = ()


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
        total = Counter()
        for step in self.per_step:
            total.update(step)
        return dict(total)

    @property
    def total(self) -> int:
        """All evaluations of the run."""
        return sum(self.evaluations.values())


def required_branches(
    method: Method, strength_F: np.ndarray, weight_F: np.ndarray, always: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The branches one sample needs on one step, in the method's own order."""
    needed = method.required(strength_F, weight_F).union(always)
    return tuple(branch for branch in method.branches if branch in needed)


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
    known: dict[tuple, int] = {}
    per_step = []
    for k in range(num_steps):
        steps = [_step(row, method[k], k) for row, method in zip(rows, methods)]
        for _ in range(counts[k]):
            wanted: dict[tuple, None] = {}
            for i, (branches, effect) in enumerate(steps):
                seen = tuple((branch, texts[i].get(branch)) for branch in branches)
                wanted |= {(branch, trajectories[i], text): None for branch, text in seen}
                path = (trajectories[i], seen, effect)
                trajectories[i] = ("after", known.setdefault(path, len(known)))
            per_step.append(dict(Counter(branch for branch, _, _ in wanted)))
    may_stop = any(row.method.may_stop for row in rows)
    return RunPlan(tuple(per_step), 2 * len(rows) * len(per_step), may_stop)


def _step(row: RunRow, method: Method, k: int) -> tuple[tuple[str, ...], tuple | None]:
    """The branches of one sample on step k, and what makes its result; None where it is `cond`."""
    strength_F, weight_F = row.strength_KF[k], row.weights_KF[k]
    branches = required_branches(method, strength_F, weight_F, row.always)
    if method.is_off(strength_F, weight_F).all():
        return branches, None
    deltas = method.deltas(strength_F, weight_F)
    moves = tuple((branch, tuple(values.tolist())) for branch, values in deltas.items())
    return branches, (method, row.rule, moves)
