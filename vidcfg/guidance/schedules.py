"""Schedules: the guidance scale over denoising steps. float64, numpy only.

Progress p_k = k / (K - 1) runs from 0 (the first, noisiest step) to 1 (the last). With
`over="sigma"` a schedule reads 1 - sigma_k / sigma_0 in its place, so that it follows the noise
and not the step count. A scale of 1 is off on every schedule.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float64

from vidcfg.guidance.checks import (
    Number,
    Pairs,
    blend,
    check_choice,
    check_count,
    check_interval,
    check_interval_has_step,
    check_number,
    check_points,
)

OVER = ("progress", "sigma")


def _keep_float(schedule: object, *names: str) -> None:
    """Check the named fields of a frozen schedule and keep them as floats; check `over`."""
    kind = type(schedule).__name__.lower()
    for name in names:
        value = check_number(f"{kind} schedule: {name}", getattr(schedule, name))
        object.__setattr__(schedule, name, value)
    check_choice(f"{kind} schedule: over", schedule.over, OVER)


@dataclass(frozen=True)
class Constant:
    """The same scale on every step: s(p) = value. Off at value = 1."""

    value: Number
    over: str = field(default="progress", kw_only=True)

    def __post_init__(self):
        _keep_float(self, "value")

    def values(self, progress_K: Float64[np.ndarray, "K"]) -> Float64[np.ndarray, "K"]:
        """The scale at each progress."""
        return np.full(progress_K.shape, self.value, dtype=np.float64)


@dataclass(frozen=True)
class Linear:
    """s(p) = start + (end - start) p, exactly `end` at p = 1. Off at start = end = 1.

    Source: the linear guidance schedule of arXiv:2404.13040 (Wang et al. 2024).
    """

    start: Number
    end: Number
    over: str = field(default="progress", kw_only=True)

    def __post_init__(self):
        _keep_float(self, "start", "end")

    def values(self, progress_K: Float64[np.ndarray, "K"]) -> Float64[np.ndarray, "K"]:
        """The scale at each progress."""
        return blend(self.start, self.end, progress_K)


@dataclass(frozen=True)
class Cosine:
    """s(p) = end + (start - end) (1 + cos(pi p)) / 2: flat at both ends. Off at start = end = 1.

    Source: the cosine guidance schedule of arXiv:2404.13040 (Wang et al. 2024).
    """

    start: Number
    end: Number
    over: str = field(default="progress", kw_only=True)

    def __post_init__(self):
        _keep_float(self, "start", "end")

    def values(self, progress_K: Float64[np.ndarray, "K"]) -> Float64[np.ndarray, "K"]:
        """The scale at each progress."""
        return blend(self.end, self.start, (1.0 + np.cos(np.pi * progress_K)) / 2.0)


@dataclass(frozen=True)
class Step:
    """s(p) = start while p < switch, then end: a step at exactly `switch` gets `end`."""

    start: Number
    end: Number
    switch: Number
    over: str = field(default="progress", kw_only=True)

    def __post_init__(self):
        check_number("step schedule: switch", self.switch, low=0, high=1)
        _keep_float(self, "start", "end", "switch")

    def values(self, progress_K: Float64[np.ndarray, "K"]) -> Float64[np.ndarray, "K"]:
        """The scale at each progress."""
        return np.where(progress_K < self.switch, self.start, self.end).astype(np.float64)


@dataclass(frozen=True)
class Interval:
    """s(p) = value while start <= p <= stop (both ends included), 1 (off) outside.

    In YAML the ends are written `from` and `to`. A step's decision holds for every model call
    inside that step (both of a second-order solver).

    Source: Kynkaanniemi et al. 2024, arXiv:2404.07724 (step numbers there, inclusive at both
    ends).
    """

    value: Number
    start: Number
    stop: Number
    over: str = field(default="progress", kw_only=True)

    def __post_init__(self):
        check_interval("interval schedule", self.start, self.stop)
        _keep_float(self, "value", "start", "stop")

    def values(self, progress_K: Float64[np.ndarray, "K"]) -> Float64[np.ndarray, "K"]:
        """The scale at each progress."""
        return np.where(self.inside(progress_K), self.value, 1.0).astype(np.float64)

    def inside(self, progress_K: Float64[np.ndarray, "K"]) -> Bool[np.ndarray, "K"]:
        """Whether each progress lies in the interval."""
        return (progress_K >= self.start) & (progress_K <= self.stop)


@dataclass(frozen=True)
class Knots:
    """Linear between the points [[p, scale], ...]; the end scales hold beyond the end points."""

    points: Pairs
    over: str = field(default="progress", kw_only=True)

    def __post_init__(self):
        points = check_points("knots schedule: points", self.points, low=-np.inf, high=np.inf)
        object.__setattr__(self, "points", points)
        _keep_float(self)

    def values(self, progress_K: Float64[np.ndarray, "K"]) -> Float64[np.ndarray, "K"]:
        """The scale at each progress."""
        positions, scales = zip(*self.points, strict=True)
        return np.interp(progress_K, positions, scales).astype(np.float64)


@dataclass(frozen=True)
class Listed:
    """One scale per step, as written: s_k = values_K[k]. In YAML a bare list of numbers.

    Raises:
        ValueError: with `over="sigma"`, which a list of one number per step cannot follow.
    """

    values_K: Sequence[Number]
    over: str = field(default="progress", kw_only=True)

    def __post_init__(self):
        if len(self.values_K) == 0:
            raise ValueError("list schedule: values is empty. Give one number per step.")
        numbers = tuple(
            check_number(f"list schedule: values[{index}]", value)
            for index, value in enumerate(self.values_K)
        )
        object.__setattr__(self, "values_K", numbers)
        _keep_float(self)
        if self.over == "sigma":
            raise ValueError(
                "list schedule: over is 'sigma', but a list has one number per step, whatever the "
                "noise. Use `over: progress`, or `kind: knots` to follow the noise level."
            )

    def values(self, progress_K: Float64[np.ndarray, "K"]) -> Float64[np.ndarray, "K"]:
        """The scale at each step.

        Raises:
            ValueError: if there is not exactly one number per step.
        """
        if len(self.values_K) != len(progress_K):
            raise ValueError(
                f"list schedule: values has {len(self.values_K)} numbers, but there are "
                f"{len(progress_K)} steps. Give one per step, set sampling.num_steps to "
                f"{len(self.values_K)}, or use `kind: knots`."
            )
        return np.array(self.values_K, dtype=np.float64)


Schedule = Constant | Linear | Cosine | Step | Interval | Knots | Listed

SCHEDULES: dict[str, type] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "step": Step,
    "interval": Interval,
    "knots": Knots,
    "list": Listed,
}


def progress(num_steps: int) -> Float64[np.ndarray, "K"]:
    """p_k = k / (K - 1) for K = num_steps, and [0] for one step.

    Each p_k is the float64 nearest to the exact fraction: with 11 steps, p_3 == 0.3.
    """
    check_count("num_steps", num_steps)
    return np.arange(num_steps, dtype=np.float64) / max(num_steps - 1, 1)


def sigma_progress(sigmas_K: Sequence[Number] | np.ndarray) -> Float64[np.ndarray, "K"]:
    """1 - sigma_k / sigma_0: 0 at the first step, 1 where no noise is left.

    `sigmas_K` is the noise level at which each of the K steps evaluates the model, in any unit.

    Raises:
        ValueError: if a level is not finite, is negative, or is above the first one.
    """
    levels_K = np.asarray(sigmas_K, dtype=np.float64)
    if levels_K.ndim != 1 or levels_K.size == 0:
        raise ValueError(f"sigmas has shape {levels_K.shape}, but must have one level per step.")
    first = levels_K[0]
    usable = np.isfinite(levels_K).all() and first > 0
    if not usable or (levels_K < 0).any() or (levels_K > first).any():
        raise ValueError(
            f"sigmas runs from {levels_K[0]:g} to {levels_K[-1]:g} (lowest {levels_K.min():g}, "
            f"highest {levels_K.max():g}), but must start at its highest level, above 0, and stay "
            f"at 0 or above. Where a scheduler's levels rise, pass 1 - sigma."
        )
    return 1.0 - levels_K / first


def scale_per_step(
    schedule: Schedule,
    *,
    num_steps: int,
    sigmas: Sequence[Number] | np.ndarray | None = None,
) -> Float64[np.ndarray, "K"]:
    """The scale at each of `num_steps` steps.

    `sigmas` (the noise level at which each step evaluates the model, without the final 0) is read
    by schedules with `over="sigma"` alone.

    Raises:
        ValueError: if an interval holds no step, a list has the wrong length, or a schedule over
            sigma has no sigmas or not one per step.
    """
    return schedule.values(_positions(schedule, num_steps=num_steps, sigmas=sigmas))


def active_steps(
    schedule: Schedule,
    *,
    num_steps: int,
    sigmas: Sequence[Number] | np.ndarray | None = None,
) -> Bool[np.ndarray, "K"]:
    """Which steps a schedule guides at all: those inside an interval, every one of other kinds.

    A scale of 1 that is written out (constant 1, a list with a 1) is active: terms with a scale of
    their own, such as a negative prompt's, stay on there. Raises ValueError as `scale_per_step`
    does.
    """
    position_K = _positions(schedule, num_steps=num_steps, sigmas=sigmas)
    if isinstance(schedule, Interval):
        return schedule.inside(position_K)
    return np.ones(num_steps, dtype=bool)


def _positions(
    schedule: Schedule, *, num_steps: int, sigmas: Sequence[Number] | np.ndarray | None
) -> Float64[np.ndarray, "K"]:
    """What the schedule reads at each step: the step progress, or that of the noise level."""
    position_K = progress(num_steps)
    if schedule.over == "sigma":
        if sigmas is None:
            raise ValueError(
                "a schedule with `over: sigma` needs the scheduler's noise levels. Pass "
                "sigmas=scheduler.sigmas[:num_steps], or use `over: progress`."
            )
        position_K = sigma_progress(sigmas)
        if len(position_K) != num_steps:
            raise ValueError(
                f"sigmas has {len(position_K)} levels, but there are {num_steps} steps. Give one "
                f"per step and leave out the final 0 that schedulers append."
            )
    if isinstance(schedule, Interval):
        check_interval_has_step("interval schedule", schedule.start, schedule.stop, position_K)
    return position_K


_SCALE_FIELDS = ("value", "start", "end")


def from_w(schedule: Schedule) -> Schedule:
    """The same schedule in the convention s = w + 1: every scale in it is raised by 1.

    Outside an interval the strength is 1 (w = 0) in both conventions.
    """
    if isinstance(schedule, Knots):
        return replace(schedule, points=tuple((p, w + 1.0) for p, w in schedule.points))
    if isinstance(schedule, Listed):
        return replace(schedule, values_K=tuple(w + 1.0 for w in schedule.values_K))
    if isinstance(schedule, Interval):
        return replace(schedule, value=schedule.value + 1.0)
    names = [name for name in _SCALE_FIELDS if hasattr(schedule, name)]
    return replace(schedule, **{name: getattr(schedule, name) + 1.0 for name in names})
