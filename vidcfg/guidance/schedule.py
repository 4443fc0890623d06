"""Schedules: the guidance scale over denoising steps. float64, numpy only.

Progress p_k = k / (K - 1) runs from 0 (the first, noisiest step) to 1 (the last). With
`over: sigma` a schedule reads 1 - sigma_k / sigma_0 in its place, so that it follows the noise
and not the step count. A scale of 1 is off on every schedule.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Discriminator, Field, Tag, model_serializer

from vidcfg.guidance.shapes import Bool, Float64
from vidcfg.settings.base import (
    AtLeastOne,
    Finding,
    Fraction,
    Kinds,
    Number,
    Pair,
    refuse,
)
from vidcfg.settings.schema_walk import keys_of

Steps = Float64[np.ndarray, "K"]


def progress(num_steps: int) -> Steps:
    """p_k = k / (K - 1) for K = num_steps, and [0] for one step.

    Each p_k is the float64 nearest to the exact fraction: with 11 steps, p_3 == 0.3.
    """
    if isinstance(num_steps, bool) or num_steps < 1:
        raise ValueError(f"num_steps is {num_steps!r}, but must be a whole number of at least 1.")
    return np.arange(num_steps, dtype=np.float64) / max(num_steps - 1, 1)


def sigma_progress(sigmas: Any) -> Steps:
    """1 - sigma_k / sigma_0: 0 at the first step, 1 where no noise is left.

    `sigmas` holds the noise level at which each of the K steps evaluates the model, in any unit.

    Raises:
        ValueError: if a level is not finite, is negative, or is above the first one.
    """
    levels_K = np.asarray(sigmas, dtype=np.float64)
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


def positions(over: str, num_steps: int, sigmas: Any = None) -> Steps:
    """What a schedule reads at each step: the step progress, or that of the noise level.

    `sigmas` are the levels at which the steps evaluate the model, without the final 0.

    Raises:
        ValueError: over sigma without sigmas, or with not one per step.
    """
    if over == "progress":
        return progress(num_steps)
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
    return position_K


def blend(start: float, end: float, t: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """start + (end - start) t: exactly `start` at t = 0 and `end` at t = 1, never beyond them."""
    blended = start + (end - start) * t
    blended = np.clip(blended, min(start, end), max(start, end))
    return np.where(t == 1.0, end, np.where(t == 0.0, start, blended)).astype(np.float64)


def ends_in_order(start: float, stop: float) -> Iterator[Finding]:
    """A finding when an interval ends before it begins."""
    if start > stop:
        yield Finding(("to",), f"is {stop:g}, but must not be below 'from', {start:g}. Swap them.")


def within(start: float, stop: float, position_K: Steps) -> Bool[np.ndarray, "K"]:
    """Which steps lie from `start` to `stop`, both included."""
    return (position_K >= start) & (position_K <= stop)


def holds_a_step(start: float, stop: float, position_K: Steps) -> Iterator[Finding]:
    """A finding when no step lies from `start` to `stop`."""
    if start > stop or within(start, stop, position_K).any():
        return
    below_K, above_K = position_K[position_K < start], position_K[position_K > stop]
    nearest = [*np.sort(below_K)[-1:], *np.sort(above_K)[:1]]
    near = " and ".join(f"{p:.4g}" for p in nearest)
    yield Finding(
        (),
        f"guides no step: none of the {len(position_K)} steps lies from {start:g} to {stop:g}; "
        f"the nearest are at {near}. Widen the interval.",
    )


def increasing_positions(points: tuple) -> tuple:
    """Check that knots are sorted and that no position is given twice."""
    for (before, _), (after, _) in zip(points, points[1:], strict=False):
        if after <= before:
            raise refuse(
                f"but its positions must increase, and {after:g} follows {before:g}. "
                "Sort the points and keep one of each position."
            )
    return points


Rising = AfterValidator(increasing_positions)


class Schedule(Kinds):
    """One scale per step. A kind says what it is at each progress, and which values are scales.

    scales   the fields that hold scales: numbers, or lists of numbers or of [progress, scale]
    span     from which progress to which it guides at all. A scale of 1 that is written out does:
             terms with a scale of their own, such as a negative prompt's, stay on there
    """

    kinds: ClassVar[dict[str, type["Schedule"]]] = {}
    shapes: ClassVar[str] = (
        "a number (1.0 = off), a list with one number (or row) per step, an .npy file, or a "
        "schedule such as {kind: cosine, start: 10.0, end: 2.0}."
    )
    scales: ClassVar[tuple[str, ...]]
    span: ClassVar[tuple[float, float]] = (0.0, 1.0)

    over: Literal["progress", "sigma"] = "progress"

    @classmethod
    def from_short(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"kind": "constant", "value": value}
        is_file = isinstance(value, str) and value.endswith(".npy")
        if isinstance(value, list | tuple) or is_file:
            has_rows = is_file or any(isinstance(row, list | tuple) for row in value)
            return {"kind": "matrix" if has_rows else "list", "values": value}
        return {"kind": value} if cls.knows(value) else value

    @model_serializer(mode="wrap")
    def _written(self, handler: Callable) -> dict[str, Any]:
        # What all kinds have comes last, behind what says which kind this is.
        own = handler(self)
        over = own.pop("over")
        return {"kind": self.kind, **own, "over": over}

    def values(self, position_K: Steps) -> Float64[np.ndarray, "K *N"]:
        """The scale at each progress; those of latent frames where each has its own."""
        raise NotImplementedError

    def check_run(self, position_K: Steps) -> Iterator[Finding]:
        """What cannot work on steps with these positions."""
        return iter(())

    def numbers(self) -> tuple[float, ...]:
        """Every scale that is written in the schedule."""
        found = []
        for name in self.scales:
            value = getattr(self, name)
            items = value if isinstance(value, tuple) else (value,)
            found += [item[-1] if isinstance(item, tuple) else item for item in items]
        return tuple(found)

    def raised(self) -> "Schedule":
        """The same with 1 added to every scale, for numbers that were written as w = s - 1.

        Outside an interval the strength is 1 (w = 0) in both conventions.
        """

        def plus_one(value: Any) -> Any:
            if not isinstance(value, tuple):
                return value + 1.0
            return tuple(
                (*v[:-1], v[-1] + 1.0) if isinstance(v, tuple) else v + 1.0 for v in value
            )

        return self.model_copy(update={n: plus_one(getattr(self, n)) for n in self.scales})


def schedule(kind: str) -> Callable[[type], type]:
    """The decorator that enters a schedule under its name in the YAML.

    Raises:
        TypeError: for a class that does not say which of its fields hold scales.
    """

    def enter(cls: type) -> type:
        if not hasattr(cls, "scales"):
            raise TypeError(f"{cls.__name__} does not name its scales. Write scales = ('value',).")
        return Schedule.named(kind)(cls)

    return enter


@schedule("constant")
class Constant(Schedule):
    """The same scale on every step. `guidance.scale: 6.0` is short for it. Off at 1."""

    scales = ("value",)

    value: Number = Field(description="a scale, 1.0 = off")

    def findings(self):
        if self.over == "sigma":
            message = "is 'sigma', which has no effect: a constant is the same over both."
            yield Finding(("over",), message, is_error=False)

    def values(self, position_K: Steps) -> Steps:
        return np.full(position_K.shape, self.value, dtype=np.float64)


Start = Annotated[Number, Field(description="the scale on the first, noisiest step")]
End = Annotated[Number, Field(description="the scale on the last step")]


class TwoEnds(Schedule):
    """A schedule from a scale to another one."""

    scales = ("start", "end")

    start: Start
    end: End


@schedule("linear")
class Linear(TwoEnds):
    """start + (end - start) p, exactly `end` at p = 1. Off at start = end = 1.

    Source: the linear guidance schedule of arXiv:2404.13040 (Wang et al. 2024).
    """

    def values(self, position_K: Steps) -> Steps:
        return blend(self.start, self.end, position_K)


@schedule("cosine")
class Cosine(TwoEnds):
    """end + (start - end) (1 + cos(pi p)) / 2: flat at both ends. Off at start = end = 1.

    Source: the cosine guidance schedule of arXiv:2404.13040 (Wang et al. 2024).
    """

    def values(self, position_K: Steps) -> Steps:
        return blend(self.end, self.start, (1.0 + np.cos(np.pi * position_K)) / 2.0)


@schedule("step")
class StepSchedule(TwoEnds):
    """`start` while p < `switch`, then `end`: a step at exactly `switch` gets `end`."""

    start: Start
    end: End
    switch: Fraction = Field(description="a progress from 0 to 1")

    def values(self, position_K: Steps) -> Steps:
        return np.where(position_K < self.switch, self.start, self.end).astype(np.float64)


@schedule("interval")
class IntervalSchedule(Schedule):
    """`value` from progress `from` to `to`, both included, and 1 (off) outside.

    A step's decision holds for every model call inside that step (both of a second-order solver).

    Source: Kynkaanniemi et al. 2024, arXiv:2404.07724 (step numbers there, inclusive at both
    ends).
    """

    scales = ("value",)

    value: Number = Field(description="the scale inside the interval")
    start: Fraction = Field(alias="from", description="a progress from 0 to 1")
    stop: Fraction = Field(alias="to", description="a progress from 0 to 1")

    def findings(self):
        return ends_in_order(self.start, self.stop)

    def check_run(self, position_K: Steps) -> Iterator[Finding]:
        return holds_a_step(self.start, self.stop, position_K)

    @property
    def span(self) -> tuple[float, float]:
        return self.start, self.stop

    def values(self, position_K: Steps) -> Steps:
        return np.where(within(*self.span, position_K), self.value, 1.0).astype(np.float64)


@schedule("knots")
class Knots(Schedule):
    """Linear between points [progress, scale]; the first and last scale hold beyond them."""

    scales = ("points",)

    points: Annotated[AtLeastOne[Pair[Fraction, Number]], Rising] = Field(
        description="a list such as [[0.0, 10.0], [1.0, 2.0]]"
    )

    def values(self, position_K: Steps) -> Steps:
        positions, scales = zip(*self.points, strict=True)
        return np.interp(position_K, positions, scales).astype(np.float64)


@schedule("list")
class Listed(Schedule):
    """One scale per step, as written. A bare list of numbers is short for it."""

    scales = ("values_K",)

    values_K: AtLeastOne[Number] = Field(
        alias="values", description="a list with one scale per step"
    )

    def findings(self):
        if self.over == "sigma":
            yield Finding(
                ("over",),
                "is 'sigma', but a list has one number per step whatever the noise. "
                "Write 'progress', or use kind: knots.",
            )

    def check_run(self, position_K: Steps) -> Iterator[Finding]:
        if len(self.values_K) != len(position_K):
            yield Finding(
                (),
                f"has {len(self.values_K)} numbers, but sampling.num_steps is {len(position_K)}. "
                "Give one number per step, or use kind: knots.",
            )

    def values(self, position_K: Steps) -> Steps:
        return np.array(self.values_K, dtype=np.float64)


def _shape_of(value: Any) -> str:
    """`experts` for a mapping of names to schedules, `schedule` for all else."""
    if not isinstance(value, dict) or "kind" in value or not value:
        return "schedule"
    keys = {
        key for kind in Schedule.kinds.values() for key in (*keys_of(kind), *kind.model_fields)
    }
    return "schedule" if keys & set(value) else "experts"


Scale = Annotated[
    Annotated[Schedule, Tag("schedule")] | Annotated[dict[str, Schedule], Tag("experts")],
    Discriminator(_shape_of),
]
"""One schedule, or a mapping of expert names (such as `high` and `low`) to schedules."""
