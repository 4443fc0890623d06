"""`guidance.scale`: a number, a schedule over steps, or a schedule for each expert."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from vidcfg.settings.base import AsTuple, ConfigModel, Finding, Fraction, Number, Range, refuse
from vidcfg.settings.validation import number_advice

Over = Literal["progress", "sigma"]


class ConstantSchedule(ConfigModel):
    """The same scale on every step. `guidance.scale: 6.0` is short for it."""

    kind: Literal["constant"] = "constant"
    value: Number = Field(description="a scale, 1.0 = off")
    over: Over = "progress"

    def findings(self):
        yield from _over_has_no_effect(self)

    def numbers(self) -> tuple[float, ...]:
        return (self.value,)


class _TwoEnds(ConfigModel):
    start: Number = Field(description="the scale on the first, noisiest step")
    end: Number = Field(description="the scale on the last step")

    def numbers(self) -> tuple[float, ...]:
        return (self.start, self.end)


class LinearSchedule(_TwoEnds):
    """start + (end - start) p."""

    kind: Literal["linear"] = "linear"
    over: Over = "progress"


class CosineSchedule(_TwoEnds):
    """end + (start - end) (1 + cos(pi p)) / 2."""

    kind: Literal["cosine"] = "cosine"
    over: Over = "progress"


class StepSchedule(_TwoEnds):
    """`start` while p < `switch`, then `end`."""

    kind: Literal["step"] = "step"
    switch: Fraction = Field(description="a progress from 0 to 1")
    over: Over = "progress"


class IntervalSchedule(ConfigModel):
    """`value` from progress `from` to `to`, both included, and 1 (off) outside."""

    kind: Literal["interval"] = "interval"
    value: Number = Field(description="the scale inside the interval")
    start: Fraction = Field(alias="from", description="a progress from 0 to 1")
    stop: Fraction = Field(alias="to", description="a progress from 0 to 1")
    over: Over = "progress"

    def findings(self):
        yield from ends_in_order(self.start, self.stop)

    def numbers(self) -> tuple[float, ...]:
        return (self.value,)


def ends_in_order(start: float, stop: float):
    """A finding when an interval ends before it begins."""
    if start > stop:
        yield Finding(("to",), f"is {stop:g}, but must not be below 'from', {start:g}. Swap them.")


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
ScalePoint = Annotated[tuple[Fraction, Number], Field(strict=False), AsTuple]


class KnotsSchedule(ConfigModel):
    """Linear between points [progress, scale]; the first and last scale hold beyond them."""

    kind: Literal["knots"] = "knots"
    points: Annotated[
        tuple[ScalePoint, ...], Field(strict=False, min_length=1), AsTuple, Rising
    ] = Field(description="a list such as [[0.0, 10.0], [1.0, 2.0]]")
    over: Over = "progress"

    def numbers(self) -> tuple[float, ...]:
        return tuple(scale for _, scale in self.points)


class ListSchedule(ConfigModel):
    """One scale per step. A bare list of numbers is short for it."""

    kind: Literal["list"] = "list"
    values: Annotated[tuple[Number, ...], Field(strict=False, min_length=1), AsTuple] = Field(
        description="a list with one scale per step"
    )
    over: Over = "progress"

    def findings(self):
        if self.over == "sigma":
            yield Finding(
                ("over",),
                "is 'sigma', but a list has one number per step whatever the noise. "
                "Write 'progress', or use kind: knots.",
            )

    def numbers(self) -> tuple[float, ...]:
        return self.values


def _over_has_no_effect(schedule: ConfigModel):
    if schedule.over == "sigma":
        message = "is 'sigma', which has no effect: a constant is the same over both."
        yield Finding(("over",), message, is_error=False)


def _schedule_from(value: Any) -> Any:
    """A number or a list of numbers becomes the schedule it is short for."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return ConstantSchedule.model_construct(value=_checked_number(value))
    if isinstance(value, list | tuple):
        return {"kind": "list", "values": list(value)}
    if isinstance(value, str) and value in _KINDS:
        return {"kind": value}
    if not isinstance(value, dict | ConfigModel):
        raise refuse(f"but must be {_SHAPES}{number_advice(value)}")
    return value


def _checked_number(value: float | int) -> float:
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise refuse("but must be a finite number.")
    return Range(-1000, 1000)(number)


_KINDS = ("constant", "linear", "cosine", "step", "interval", "knots", "list")
_FIELDS = {"value", "start", "end", "switch", "from", "to", "stop", "points", "values", "over"}
_SHAPES = (
    "a number (1.0 = off), a list with one number per step, or a schedule such as "
    "{kind: cosine, start: 10.0, end: 2.0}."
)

Schedule = Annotated[
    ConstantSchedule
    | LinearSchedule
    | CosineSchedule
    | StepSchedule
    | IntervalSchedule
    | KnotsSchedule
    | ListSchedule,
    Field(discriminator="kind"),
    BeforeValidator(_schedule_from),
]
"""One scale per step, as any of the seven kinds; a number or a list of numbers is enough."""


def _shape_of(value: Any) -> str:
    """`experts` for a mapping of names to schedules, `schedule` for all else."""
    if not isinstance(value, dict) or "kind" in value or not value:
        return "schedule"
    return "schedule" if set(value) & _FIELDS else "experts"


Scale = Annotated[
    Annotated[Schedule, Tag("schedule")] | Annotated[dict[str, Schedule], Tag("experts")],
    Discriminator(_shape_of),
]
"""One schedule, or a mapping of expert names (such as `high` and `low`) to schedules."""


def schedules_of(scale: Any) -> dict[tuple[str, ...], ConfigModel]:
    """Every schedule of a scale with its path below `scale`: one at `()`, or one per expert."""
    if isinstance(scale, dict):
        return {(name,): schedule for name, schedule in scale.items()}
    return {(): scale}
