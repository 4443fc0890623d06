"""Which model evaluations a run needs: left out where a coefficient is zero, shared where equal.

numpy only, so that a cost can be printed without a model. The plan of a run is exact: the denoiser
executes what is counted here, as the trace of a run shows.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from vidcfg.guidance.methods.base import Method


@dataclass(frozen=True, eq=False)
class RunRow:
    """One sample of a batch: its rows of strength and weight, and what makes it the same as another.

    `start` identifies the initial noise (seed), `texts` the text that each branch sees, and
    `rule` everything else that decides the guided prediction (limits, statistics).
    """

    method: Method
    strength_KF: np.ndarray
    weights_KF: np.ndarray
    start: object = None
    texts: tuple[tuple[str, object], ...] = ()
    rule: object = None


@dataclass(frozen=True)
class RunPlan:
    """Evaluations per step and branch; `naive` is two per step and sample."""

    per_step: tuple[dict[str, int], ...]
    naive: int

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
    method: Method, strength_F: np.ndarray, weight_F: np.ndarray
) -> tuple[str, ...]:
    """The branches one sample needs on one step, in the method's own order."""
    needed = method.required(strength_F, weight_F)
    return tuple(branch for branch in method.branches if branch in needed)


def plan_run(rows: list[RunRow], *, share: bool = True, evaluations_per_step: int = 1) -> RunPlan:
    """The exact evaluations of a batch of samples.

    Two samples are on the same trajectory while their start, texts, rule and the strengths of all
    steps so far coincide; a branch is then evaluated once for both. `evaluations_per_step` is 2
    for second-order schedulers such as Heun (whose last step takes one).
    """
    num_steps = len(rows[0].strength_KF)
    trajectories = [("start", row.start if share else index) for index, row in enumerate(rows)]
    per_step = []
    for k in range(num_steps):
        last = k == num_steps - 1
        for _ in range(1 if last else evaluations_per_step):
            wanted = {}
            for index, row in enumerate(rows):
                texts = dict(row.texts)
                strength, weight = row.strength_KF[k], row.weights_KF[k]
                branches = required_branches(row.method, strength, weight)
                for branch in branches:
                    wanted[(branch, trajectories[index], texts.get(branch))] = None
                seen = tuple((b, texts.get(b)) for b in branches)
                effect = None if branches == ("cond",) else _effect(row, strength, weight)
                trajectories[index] = hash((trajectories[index], seen, effect))
            per_step.append(dict(Counter(branch for branch, _, _ in wanted)))
    naive = 2 * len(rows) * len(per_step)
    return RunPlan(tuple(per_step), naive)


def _effect(row: RunRow, strength_F: np.ndarray, weight_F: np.ndarray) -> tuple:
    return (row.method, row.rule, strength_F.tobytes(), weight_F.tobytes())
