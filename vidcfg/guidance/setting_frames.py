"""`guidance.frames`: how much of (scale - 1) each frame gets, and `guidance.windows`: when."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vidcfg.guidance.setting_schedules import Rising, ends_in_order
from vidcfg.settings.base import AsTuple, ConfigModel, Finding, Fraction, Positive, Range, refuse
from vidcfg.settings.validation import choose

_TIME = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)s")
WeightPoint = Annotated[tuple[Fraction, Fraction], Field(strict=False), AsTuple]
_PLACES = ("first", "middle", "last")


def _frame_place(value: Any) -> Any:
    """Check one entry of `at`."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refuse(
            "but must be first, middle, last, a frame number such as 8, or a time such as 1.5s."
        )
    if isinstance(value, str) and value not in _PLACES and not _TIME.fullmatch(value):
        if re.fullmatch(r"-?[0-9]+", value):
            raise refuse(f"but a frame number is written without quotes. Write {value}.")
        guess = choose(value, _PLACES)
        raise refuse(f"{guess} Also allowed: a frame number such as 8, or a time such as 1.5s.")
    return value


def _as_list(value: Any) -> Any:
    if isinstance(value, int | str) and not isinstance(value, bool):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def seconds_of(place: int | str) -> float | None:
    """1.5 for `1.5s`, None for what is no time."""
    match = _TIME.fullmatch(place) if isinstance(place, str) else None
    return float(match[1]) if match else None


class _FrameWeights(ConfigModel):
    def is_uniform(self) -> bool:
        """Whether every frame of every clip has weight 1."""
        return False

    def is_off(self) -> bool:
        """Whether every frame of every clip has weight 0."""
        return False


class UniformFrames(_FrameWeights):
    """Every frame gets the full scale."""

    kind: Literal["uniform"] = "uniform"

    def is_uniform(self) -> bool:
        return True


class KeyframesFrames(_FrameWeights):
    """1 at the keyframes, falling to `floor` over `reach` frames; overlaps by max."""

    kind: Literal["keyframes"] = "keyframes"
    at: Annotated[
        tuple[Annotated[int | str, BeforeValidator(_frame_place)], ...],
        Field(strict=False, min_length=1),
        BeforeValidator(_as_list),
    ] = Field(description="a list such as [first, middle, last]")
    floor: Fraction = Field(description="the weight between keyframes, from 0 to 1")
    reach: Positive = Field(
        description="the number of frames over which the weight falls to floor"
    )
    falloff: Literal["linear", "cosine", "gaussian"] = "linear"

    def is_uniform(self) -> bool:
        return self.floor == 1.0


class DecayFrames(_FrameWeights):
    """1 on the first frame to `end` on the last."""

    kind: Literal["decay"] = "decay"
    end: Fraction = Field(description="the weight of the last frame, from 0 to 1")
    curve: Literal["linear", "cosine", "exponential"] = "linear"

    def findings(self):
        if self.curve == "exponential" and self.end == 0.0:
            yield Finding(
                ("end",), "is 0, which an exponential never reaches. Write 0.01, or curve: linear."
            )

    def is_uniform(self) -> bool:
        return self.end == 1.0


class RampFrames(_FrameWeights):
    """Linear from `first` on the first frame to `last` on the last."""

    kind: Literal["ramp"] = "ramp"
    first: Fraction = Field(description="the weight of the first frame, from 0 to 1")
    last: Fraction = Field(description="the weight of the last frame, from 0 to 1")

    def is_uniform(self) -> bool:
        return self.first == self.last == 1.0

    def is_off(self) -> bool:
        return self.first == self.last == 0.0


class TriangleFrames(_FrameWeights):
    """Full weight in the middle of the clip, falling towards both ends (multi-view orbits)."""

    kind: Literal["triangle"] = "triangle"


class TrapezoidFrames(_FrameWeights):
    """Full weight on a plateau; `edge` is the part of the clip that each flank takes."""

    kind: Literal["trapezoid"] = "trapezoid"
    edge: Annotated[float, AfterValidator(Range(0, 0.5, above=True))] = 0.1


class KnotsFrames(_FrameWeights):
    """Linear between points [position, weight]; position 0 is the first frame, 1 the last."""

    kind: Literal["knots"] = "knots"
    points: Annotated[
        tuple[WeightPoint, ...], Field(strict=False, min_length=1), AsTuple, Rising
    ] = Field(description="a list such as [[0.0, 1.0], [1.0, 0.2]]")

    def is_uniform(self) -> bool:
        return all(weight == 1.0 for _, weight in self.points)

    def is_off(self) -> bool:
        return all(weight == 0.0 for _, weight in self.points)


def _frames_from(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    if not isinstance(value, dict | ConfigModel):
        raise refuse("but must be uniform or a mapping such as {kind: decay, end: 0.2}.")
    return value


Frames = Annotated[
    UniformFrames
    | KeyframesFrames
    | DecayFrames
    | RampFrames
    | TriangleFrames
    | TrapezoidFrames
    | KnotsFrames,
    Field(discriminator="kind"),
    BeforeValidator(_frames_from),
]
"""The weight of each pixel frame, as any of the seven kinds; `uniform` is enough for the first."""


class Window(ConfigModel):
    """Frames `[first, last]`, both included, that are guided only from progress `from` to `to`."""

    frames: Annotated[tuple[int, int], Field(strict=False), AsTuple] = Field(
        description="[first, last], both included"
    )
    start: Fraction = Field(default=0.0, alias="from")
    stop: Fraction = Field(default=1.0, alias="to")

    def findings(self):
        yield from ends_in_order(self.start, self.stop)
        first, last = self.frames
        if (first < 0) == (last < 0) and first > last:
            message = (
                f"is [{first}, {last}], but the first frame must not be after the last. Swap them."
            )
            yield Finding(("frames",), message)
        if (self.start, self.stop) == (0.0, 1.0):
            yield Finding((), "covers every step, so it has no effect.", is_error=False)
