"""The rules of a batch, what each step needs of them, and what they remember between steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from vidcfg.guidance.plan import required_branches
from vidcfg.guidance.rule import Rule
from vidcfg.guidance.rules.base import Level, Method
from vidcfg.guidance.surface import Surface


@dataclass(frozen=True, eq=False)
class SampleRows:
    """The rule of every sample of a batch and its strengths: row [k] of each is step k's.

    Strengths and weights have one entry per sample: (K, F), or (K, N, F) for a rule of N terms.
    `experts` names the model of each step (None: one model); `levels` are the noise levels before
    and after each step, for rules that depend on both. Branches in `always` run on every step.
    """

    rules: tuple[Rule, ...]
    strength_BKF: Sequence[np.ndarray] | np.ndarray
    weights_BKF: Sequence[np.ndarray] | np.ndarray
    experts: tuple[str, ...] | None = None
    levels: tuple[tuple[Level, Level], ...] | None = None
    always: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, rules: Sequence[Rule], surfaces: Sequence[tuple[Surface, ...]], **run: Any
    ) -> "SampleRows":
        """From the surfaces of every sample, one per term of its rule."""
        return cls(
            tuple(rules),
            tuple(stacked([s.strength_KF for s in terms]) for terms in surfaces),
            tuple(stacked([s.weights_KF for s in terms]) for terms in surfaces),
            **run,
        )

    @property
    def num_steps(self) -> int:
        return len(self.strength_BKF[0])

    @cached_property
    def methods(self) -> tuple[tuple[Method, ...], ...]:
        """The rule of every sample on every step."""
        rows = zip(self.rules, self.strength_BKF, self.weights_BKF)
        run = {"experts": self.experts, "levels": self.levels}
        return tuple(rule.method.steps(strength, weight, **run) for rule, strength, weight in rows)

    def branches(self, sample: int, step: int) -> tuple[str, ...]:
        """The branches that a sample needs on a step, unless its rule has stopped by then."""
        rows = (self.strength_BKF[sample][step], self.weights_BKF[sample][step])
        return required_branches(self.methods[sample][step], *rows, self.always)


def stacked(terms: Sequence[np.ndarray]) -> np.ndarray:
    """(K, F) rows of one term as they are, of several as (K, N, F)."""
    return terms[0] if len(terms) == 1 else np.stack(terms, axis=1)


@dataclass
class Memory:
    """What the rules of one run keep from step to step: one for each run, made when it begins.

    Keyed by sample and by expert, so that no sample sees another's and a model that takes over
    starts afresh. `vectors` are tensors (momentum) by the names in `Method.remembers`, `stopped`
    marks the frames (and terms) whose guidance has ended.
    """

    vectors: dict[tuple[int, str | None], dict[str, Any]] = field(default_factory=dict)
    stopped: dict[tuple[int, str | None], np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SampleStep:
    """One sample on one step: its rule, the strengths in force, the branches that it needs."""

    sample: int
    rule: Rule
    method: Method
    strength_F: np.ndarray
    weight_F: np.ndarray
    branches: tuple[str, ...]
    remembered: dict[str, Any]

    @property
    def is_cond(self) -> bool:
        """Whether the result is the conditional prediction itself."""
        return not any(self.method.active(*self.rows))

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        return self.strength_F, self.weight_F

    def group_key(self) -> tuple:
        """What samples must share to be combined together."""
        known = tuple(sorted(self.remembered))
        active = self.method.active(*self.rows)
        return (self.rule.group_key(), self.method, self.branches, active, known)


def sample_steps(
    samples: SampleRows, step: int, memory: Memory, expert: str | None
) -> list[SampleStep]:
    """Every sample on one step; where its rule has stopped the strength is 1 and the weight 0."""
    found = []
    for b, rule in enumerate(samples.rules):
        method = samples.methods[b][step]
        strength, weight = samples.strength_BKF[b][step], samples.weights_BKF[b][step]
        stopped = memory.stopped.get((b, expert))
        if stopped is not None:
            strength, weight = np.where(stopped, 1.0, strength), np.where(stopped, 0.0, weight)
        branches = required_branches(method, strength, weight, samples.always)
        remembered = memory.vectors.get((b, expert), {})
        found.append(SampleStep(b, rule, method, strength, weight, branches, remembered))
    return found
