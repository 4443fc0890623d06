"""Frame weights: the share of (scale - 1) that each pixel frame gets.

1 is full, 0 is off; those written frame by frame may be above 1. float64, numpy only.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, PlainSerializer

from vidcfg.guidance.schedule import Rising, blend, progress
from vidcfg.guidance.shapes import Float64
from vidcfg.settings.base import (
    AtLeastOne,
    Finding,
    Fraction,
    Kinds,
    Pair,
    Positive,
    Range,
    refuse,
)
from vidcfg.settings.validation import choose

Weights = Float64[np.ndarray, "T"]
Fps = float | int | None
_TIME = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)s")
_PLACES = ("first", "middle", "last")


class FrameWeights(Kinds):
    """A weight for every frame of a clip.

    reducer   how a latent frame takes its weight from its pixel frames: `mean` or `max`
    bounds    what is written that every weight lies between, whatever the clip; empty where the
              clip decides
    """

    kinds: ClassVar[dict[str, type["FrameWeights"]]] = {}
    shapes: ClassVar[str] = (
        "uniform, a list with one weight per frame, or a mapping such as {kind: decay, end: 0.2}."
    )
    reducer: ClassVar[str] = "mean"

    @classmethod
    def from_short(cls, value: Any) -> Any:
        if callable(value):
            return FunctionWeights(of=value)
        if isinstance(value, list | tuple):
            return {"kind": "list", "values": value}
        return super().from_short(value)

    def weights(self, num_frames: int, *, fps: Fps = None) -> Weights:
        """The weight of each pixel frame, usually from 0 to 1."""
        raise NotImplementedError

    @property
    def bounds(self) -> tuple[float, ...]:
        return ()

    @property
    def is_uniform(self) -> bool:
        """Whether every frame of every clip has weight 1."""
        return set(self.bounds) == {1}

    @property
    def is_off(self) -> bool:
        """Whether every frame of every clip has weight 0."""
        return set(self.bounds) == {0}

    def check_run(self, num_frames: int, fps: Fps) -> Iterator[Finding]:
        """What cannot work in a clip of this length and frame rate."""
        return iter(())

    def no_effect(self, num_frames: int, fps: Fps) -> str | None:
        """Why these weights are not what is meant in such a clip, None where they are."""
        if num_frames > 1 or self.is_uniform:
            return None
        return "has no effect: video.num_frames is 1. Write uniform."


frames = FrameWeights.named


@frames("uniform")
class Uniform(FrameWeights):
    """1 on every frame: the same guidance for all of them.

    Weight: 1
    Use: plain guidance
    """

    bounds: ClassVar[tuple[float, ...]] = (1.0,)

    def weights(self, num_frames: int, *, fps: Fps = None) -> Weights:
        return np.ones(num_frames, dtype=np.float64)


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


def _in_a_list(value: Any) -> Any:
    return (value,) if isinstance(value, int | str) and not isinstance(value, bool) else value


def outside(frame: int, num_frames: int) -> str | None:
    """What is wrong with a frame number that the clip does not have; negative from the end."""
    if -num_frames <= frame < num_frames:
        return None
    return f"the clip has frames 0 to {num_frames - 1} (or {-num_frames} to -1 from the end)."


@frames("keyframes")
class Keyframes(FrameWeights):
    """1 at each keyframe, falling to `floor` at `reach` frames from it; overlaps by max.

        w_f = floor + (1 - floor) g(d / reach),  d = frames to the nearest keyframe
        linear    g(x) = 1 - x                              up to x = 1, 0 beyond
        cosine    g(x) = (1 + cos(pi x)) / 2
        gaussian  g(x) = (e(x) - e(1)) / (1 - e(1)),  e(x) = exp(-(3 x)^2 / 2), without a jump

    `at` holds `first`, `middle` (frame (T - 1) // 2), `last`, frame numbers (negative: from the
    end) and times such as `"1.5s"` (the nearest frame; the later one at a tie; needs fps).

    Weight: 1 at the frames in `at` (first, middle, last, numbers, negative numbers, `1.5s`),
        falling to `floor` over `reach` frames
    Use: frames that must show the prompt, with freedom between
    Source: distance to the nearest input frame as in Stable Virtual Camera's guidance
        (arXiv:2503.14489, which gives far frames more), with the fall-off bounded by `reach`.
    """

    reducer = "max"

    at: Annotated[
        AtLeastOne[Annotated[int | str, BeforeValidator(_frame_place)]],
        BeforeValidator(_in_a_list),
    ] = Field(description="a list such as [first, middle, last]")
    floor: Fraction = Field(description="the weight between keyframes, from 0 to 1")
    reach: Positive = Field(
        description="the number of frames over which the weight falls to floor"
    )
    falloff: Literal["linear", "cosine", "gaussian"] = "linear"

    @property
    def bounds(self) -> tuple[float, ...]:
        return 1.0, self.floor

    def check_run(self, num_frames: int, fps: Fps) -> Iterator[Finding]:
        for i, place in enumerate(self.at):
            frame, trouble = _frame_of(place, num_frames, fps), None
            if frame is None:
                fix = "Set video.fps (fps=... in Python), or use a frame number."
                trouble = f"is '{place}', but no fps is known. {fix}"
            elif isinstance(place, int) and outside(place, num_frames):
                trouble = f"is {place}, but {outside(place, num_frames)}"
            elif frame >= num_frames:
                last = f"{num_frames} frames at {fps:g} fps is at {(num_frames - 1) / fps:g}s"
                trouble = f"is '{place}', but the last of {last}. Write an earlier time, or last."
            if trouble:
                yield Finding(("at", i), trouble)

    def no_effect(self, num_frames: int, fps: Fps) -> str | None:
        keyframes = {_frame_of(place, num_frames, fps) for place in self.at}
        if num_frames > 1 and keyframes >= set(range(num_frames)):
            return "has no effect: every frame is a keyframe. Write uniform."
        return super().no_effect(num_frames, fps)

    def frames(self, num_frames: int, *, fps: Fps = None) -> tuple[int, ...]:
        """The keyframes as sorted frame numbers in 0..T-1, each once."""
        return tuple(sorted({_frame_of(place, num_frames, fps) for place in self.at}))

    def weights(self, num_frames: int, *, fps: Fps = None) -> Weights:
        keyframes = np.array(self.frames(num_frames, fps=fps))
        distance_T = np.abs(np.arange(num_frames)[:, None] - keyframes).min(axis=1)
        x_T = np.minimum(distance_T / self.reach, 1.0)
        share_T = 1.0 - x_T
        if self.falloff == "cosine":
            share_T = (1.0 + np.cos(np.pi * x_T)) / 2.0
        elif self.falloff == "gaussian":
            share_T = (np.exp(-4.5 * x_T**2) - np.exp(-4.5)) / (1.0 - np.exp(-4.5))
        return blend(self.floor, 1.0, share_T)


def _frame_of(place: int | str, num_frames: int, fps: Fps) -> int | None:
    """The frame number of a place, a tie going to the later frame; None for a time without fps."""
    words = {"first": 0, "middle": (num_frames - 1) // 2, "last": num_frames - 1}
    if isinstance(place, str) and place in words:
        return words[place]
    if isinstance(place, int):
        return place % num_frames
    return None if fps is None else math.floor(float(place[:-1]) * fps + 0.5)


@frames("decay")
class Decay(FrameWeights):
    """1 on the first frame, falling to `end` on the last. With u = f / (T - 1):

        linear       w = 1 + (end - 1) u
        cosine       w = end + (1 - end) (1 + cos(pi u)) / 2
        exponential  w = end^u, for end > 0

    A single frame has weight 1.

    Weight: 1 on the first frame to `end` on the last (linear, cosine, exponential)
    Use: clips that continue a given picture, long clips that burn towards the end
    """

    end: Fraction = Field(description="the weight of the last frame, from 0 to 1")
    curve: Literal["linear", "cosine", "exponential"] = "linear"

    @property
    def bounds(self) -> tuple[float, ...]:
        return 1.0, self.end

    def findings(self):
        if self.curve == "exponential" and self.end == 0.0:
            yield Finding(
                ("end",), "is 0, which an exponential never reaches. Write 0.01, or curve: linear."
            )

    def weights(self, num_frames: int, *, fps: Fps = None) -> Weights:
        u_T = progress(num_frames)
        if self.curve == "linear":
            return blend(1.0, self.end, u_T)
        if self.curve == "cosine":
            return blend(self.end, 1.0, (1.0 + np.cos(np.pi * u_T)) / 2.0)
        return self.end**u_T


@frames("ramp")
class Ramp(FrameWeights):
    """Linear: w = np.linspace(first, last, T). A single frame has weight `first`.

    With scale s, `first` 0 and `last` 1 give the strengths linspace(1, s, T).

    Weight: `first` to `last` in a straight line; 0 to 1 is Stable Video Diffusion's
    Use: image to video: the first frame is given
    Source: Stable Video Diffusion, arXiv:2311.15127 (sgm's LinearPredictionGuider;
        min_guidance_scale to max_guidance_scale in diffusers). Open-Sora 2's per-latent linspace
        is this ramp over latent frames.
    """

    first: Fraction = Field(description="the weight of the first frame, from 0 to 1")
    last: Fraction = Field(description="the weight of the last frame, from 0 to 1")

    @property
    def bounds(self) -> tuple[float, ...]:
        return self.first, self.last

    def weights(self, num_frames: int, *, fps: Fps = None) -> Weights:
        return np.linspace(self.first, self.last, num_frames, dtype=np.float64)


class Orbit(FrameWeights):
    """0 on the first and last frame, full weight between, for cameras that come back.

        w_f = min(1, f / E, (T - 1 - f) / E)

    E is the number of frames of an edge. A single frame has weight 1; two frames are both ends
    and have 0.
    """

    def edge_frames(self, num_frames: int) -> float | int:
        """E for a clip of this length."""
        raise NotImplementedError

    def weights(self, num_frames: int, *, fps: Fps = None) -> Weights:
        if num_frames == 1:
            return np.ones(1, dtype=np.float64)
        frame_T = np.arange(num_frames, dtype=np.float64)
        nearest_T = np.minimum(frame_T, frame_T[::-1])
        return np.minimum(nearest_T / self.edge_frames(num_frames), 1.0)

    def no_effect(self, num_frames: int, fps: Fps) -> str | None:
        if num_frames == 2:
            return "gives both of 2 frames weight 0. Use 3 frames or more, or another kind."
        return super().no_effect(num_frames, fps)


@frames("triangle")
class Triangle(Orbit):
    """0 on the first and last frame, 1 in the middle: w = 1 - |2 f / (T - 1) - 1|.

    With an even T no frame is the exact middle and the two middle ones have (T - 2) / (T - 1).

    Weight: 0 at both ends, 1 in the middle
    Use: orbits that begin and end at the given view
    Source: TrianglePredictionGuider with period 1 of sgm (SV3D, arXiv:2403.12008), for closed
        orbits.
    """

    def edge_frames(self, num_frames: int) -> float | int:
        return (num_frames - 1) / 2


@frames("trapezoid")
class Trapezoid(Orbit):
    """0 on the first and last frame, rising over E frames to a plateau of 1.

        E = edge * T rounded down, from 1 to (T - 1) // 2

    Every T >= 3 has at least one edge frame at each end and at least one frame of full weight.

    Weight: up over `edge` of the clip, 1 on the plateau, down again
    Use: the same, with more guided frames
    Source: TrapezoidPredictionGuider of sgm (edge_perc 0.1), whose plateau is off (1, not the
        scale) and whose edges vanish below 10 frames; neither holds here.
    """

    edge: Annotated[float, Range(0, 0.5, above=True)] = 0.1

    def edge_frames(self, num_frames: int) -> float | int:
        # 0.29 * 100 is 28.999999999999996: a whole number of frames must not lose one to rounding.
        wanted = int(np.floor(self.edge * num_frames + 1e-9))
        return max(1, min(wanted, (num_frames - 1) // 2))


@frames("list")
class ListedWeights(FrameWeights):
    """One weight for each pixel frame: a list, or in Python an array or tensor [T].

    Weight: the numbers of a list, one for each pixel frame; 1.5 at a scale of 5 is a strength of 7
    Use: weights from elsewhere: a mask, a score, a curve of your own
    """

    values: AtLeastOne[Annotated[float, Range(0, 1000)]]

    @property
    def bounds(self) -> tuple[float, ...]:
        return self.values

    def check_run(self, num_frames: int, fps: Fps) -> Iterator[Finding]:
        if len(self.values) != num_frames:
            what = f"has {len(self.values)} weights, but the clip has {num_frames} frames."
            yield Finding(("values",), f"{what} Write {num_frames}, or kind: knots.")

    def weights(self, num_frames: int, *, fps: Fps = None) -> Weights:
        return np.array(self.values, dtype=np.float64)


class FunctionWeights(FrameWeights):
    """`of(frame)`, at least 0, for each pixel frame, counted from 0; in Python alone."""

    kind = "function"

    of: Annotated[Callable[[int], float], PlainSerializer(repr)]

    def weights(self, num_frames: int, *, fps: Fps = None) -> Weights:
        return np.array([self.of(f) for f in range(num_frames)], dtype=np.float64)


@frames("knots")
class KnotWeights(FrameWeights):
    """Linear between the points [position, weight]; position 0 is the first frame, 1 the last.

    The first and last weight hold beyond the end points. A single frame is at position 0.

    Weight: straight lines between points [position 0..1, weight]
    Use: everything else
    """

    points: Annotated[AtLeastOne[Pair[Fraction, Fraction]], Rising] = Field(
        description="a list such as [[0.0, 1.0], [1.0, 0.2]]"
    )

    @property
    def bounds(self) -> tuple[float, ...]:
        return tuple(weight for _, weight in self.points)

    def weights(self, num_frames: int, *, fps: Fps = None) -> Weights:
        positions, weights = zip(*self.points, strict=True)
        weights_T = np.interp(progress(num_frames), positions, weights)
        return weights_T.clip(min(weights), max(weights)).astype(np.float64)
