"""Frame weights: the share of (scale - 1) that each pixel frame gets. float64, numpy only.

Weights lie in 0..1: 1 is full, 0 is off. `default_reducer` says how a latent frame takes its
weight from its pixel frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64

from vidcfg.guidance.checks import (
    Number,
    Pairs,
    blend,
    check_choice,
    check_count,
    check_interval,
    check_number,
    check_points,
)

_WEIGHT_FIX = "A weight is a share of (scale - 1): for more, raise the scale."


def _frame_positions(num_frames: int) -> Float64[np.ndarray, "T"]:
    """f / (T - 1) for each frame, [0] for one frame."""
    check_count("num_frames", num_frames)
    return np.arange(num_frames, dtype=np.float64) / max(num_frames - 1, 1)


def _frame_number(what: str, number: int, num_frames: int) -> int:
    """A frame number in 0..T-1; negative numbers count from the end, -1 is the last frame."""
    if -num_frames <= number < num_frames:
        return number % num_frames
    raise ValueError(
        f"{what} is {number}, but the video has {num_frames} frames. Use 0 to {num_frames - 1}, "
        f"or -1 (last) to -{num_frames}."
    )


@dataclass(frozen=True)
class Uniform:
    """w_f = 1 on every frame: the same guidance for all of them."""

    default_reducer: ClassVar[str] = "mean"

    def weights(self, num_frames: int, *, fps: Number | None = None) -> Float64[np.ndarray, "T"]:
        """The weight of each pixel frame."""
        check_count("num_frames", num_frames)
        return np.ones(num_frames, dtype=np.float64)


@dataclass(frozen=True)
class Keyframes:
    """1 at each keyframe, falling to `floor` at `reach` frames from it; overlaps by max.

        w_f = floor + (1 - floor) g(d / reach),  d = frames to the nearest keyframe,  g = 0 for d
        >= reach linear    g(x) = 1 - x cosine    g(x) = (1 + cos(pi x)) / 2 gaussian  g(x) = (e(x)
        - e(1)) / (1 - e(1)),  e(x) = exp(-(3 x)^2 / 2)

    The gaussian has a standard deviation of reach / 3 and is shifted and rescaled so that it is
    exactly 1 at the keyframe and reaches `floor` at `reach` without a jump.

    `at` holds `first`, `middle` (frame (T - 1) // 2), `last`, frame numbers (negative: from the
    end) and times such as `"1.5s"` (the nearest frame; the later one at a tie; needs fps). `floor`
    = 1 is uniform.

    Source: distance to the nearest input frame as in Stable Virtual Camera's guidance
    (arXiv:2503.14489, which gives far frames more), with the fall-off bounded by `reach`.
    """

    at: Sequence[str | int]
    floor: Number
    reach: Number
    falloff: str = "linear"

    default_reducer: ClassVar[str] = "max"
    FALLOFFS: ClassVar[tuple[str, ...]] = ("linear", "cosine", "gaussian")

    def __post_init__(self):
        if isinstance(self.at, str) or len(self.at) == 0:
            raise ValueError(
                f"keyframes: at is {self.at!r}, but must be a list such as [first, 12, 1.5s]."
            )
        object.__setattr__(self, "at", tuple(self.at))
        check_number("keyframes: floor", self.floor, low=0, high=1, fix=_WEIGHT_FIX)
        check_number(
            "keyframes: reach", self.reach, above=0, fix="Use 1 to weight the keyframes alone."
        )
        check_choice("keyframes: falloff", self.falloff, self.FALLOFFS)

    def frames(self, num_frames: int, *, fps: Number | None = None) -> tuple[int, ...]:
        """The keyframes as sorted frame numbers in 0..T-1, each once.

        Raises:
            ValueError: if a position is no such word, lies outside the video, or is a time without
            fps.
        """
        check_count("num_frames", num_frames)
        return tuple(sorted({_keyframe(entry, num_frames, fps) for entry in self.at}))

    def weights(self, num_frames: int, *, fps: Number | None = None) -> Float64[np.ndarray, "T"]:
        """The weight of each pixel frame. Raises ValueError as `frames` does."""
        keyframes = np.array(self.frames(num_frames, fps=fps))
        distance_T = np.abs(np.arange(num_frames)[:, None] - keyframes).min(axis=1)
        x_T = np.minimum(distance_T / self.reach, 1.0)
        if self.falloff == "linear":
            share_T = 1.0 - x_T
        elif self.falloff == "cosine":
            share_T = (1.0 + np.cos(np.pi * x_T)) / 2.0
        else:
            share_T = (np.exp(-4.5 * x_T**2) - np.exp(-4.5)) / (1.0 - np.exp(-4.5))
        return blend(float(self.floor), 1.0, share_T)


def _keyframe(entry: str | int, num_frames: int, fps: Number | None) -> int:
    """One entry of `Keyframes.at` as a frame number in 0..T-1."""
    words = {"first": 0, "middle": (num_frames - 1) // 2, "last": num_frames - 1}
    if isinstance(entry, str) and entry in words:
        return words[entry]
    if isinstance(entry, int) and not isinstance(entry, bool):
        return _frame_number("keyframes: at", entry, num_frames)
    if not isinstance(entry, str) or not entry.endswith("s") or not _is_decimal(entry[:-1]):
        raise ValueError(
            f"keyframes: at has {entry!r}. Use first, middle, last, a frame number (negative: "
            f"from the end), or a time such as '1.5s'."
        )
    if fps is None:
        raise ValueError(
            f"keyframes: at has {entry!r}, but no fps is known. Set video.fps (fps=... in "
            f"Python), or use a frame number."
        )
    rate = check_number("fps", fps, above=0)
    frame = int(np.floor(float(entry[:-1]) * rate + 0.5))
    if frame < num_frames:
        return frame
    raise ValueError(
        f"keyframes: at has {entry!r}, which is frame {frame} at {rate:g} fps, but the last of "
        f"the {num_frames} frames is at {(num_frames - 1) / rate:.4g}s. Use a time up to that."
    )


def _is_decimal(text: str) -> bool:
    """Whether the text is plain digits with at most one decimal point: "2", "1.5", ".5"."""
    return text.isascii() and text.replace(".", "", 1).isdigit()


@dataclass(frozen=True)
class Decay:
    """1 on the first frame, falling to `end` on the last. With u = f / (T - 1):

        linear       w = 1 + (end - 1) u
        cosine       w = end + (1 - end) (1 + cos(pi u)) / 2
        exponential  w = end^u, for end > 0

    A single frame has weight 1. `end` = 1 is uniform.
    """

    end: Number
    curve: str = "linear"

    default_reducer: ClassVar[str] = "mean"
    CURVES: ClassVar[tuple[str, ...]] = ("linear", "cosine", "exponential")

    def __post_init__(self):
        check_choice("decay: curve", self.curve, self.CURVES)
        check_number("decay: end", self.end, low=0, high=1, fix=_WEIGHT_FIX)
        if self.curve == "exponential" and self.end == 0:
            raise ValueError(
                "decay: end is 0, which an exponential never reaches. Use a small end such as "
                "0.01, or `curve: linear` or `curve: cosine`."
            )

    def weights(self, num_frames: int, *, fps: Number | None = None) -> Float64[np.ndarray, "T"]:
        """The weight of each pixel frame."""
        u_T = _frame_positions(num_frames)
        end = float(self.end)
        if self.curve == "linear":
            return blend(1.0, end, u_T)
        if self.curve == "cosine":
            return blend(end, 1.0, (1.0 + np.cos(np.pi * u_T)) / 2.0)
        return end**u_T


@dataclass(frozen=True)
class Ramp:
    """Linear: w = np.linspace(first, last, T). A single frame has weight `first`.

    With scale s, `Ramp(0, 1)` gives the strengths linspace(1, s, T).

    Source: Stable Video Diffusion, arXiv:2311.15127 (sgm's LinearPredictionGuider;
    min_guidance_scale to max_guidance_scale in diffusers). Open-Sora 2's per-latent linspace is
    this ramp over latent frames.
    """

    first: Number
    last: Number

    default_reducer: ClassVar[str] = "mean"

    def __post_init__(self):
        check_number("ramp: first", self.first, low=0, high=1, fix=_WEIGHT_FIX)
        check_number("ramp: last", self.last, low=0, high=1, fix=_WEIGHT_FIX)

    def weights(self, num_frames: int, *, fps: Number | None = None) -> Float64[np.ndarray, "T"]:
        """The weight of each pixel frame."""
        check_count("num_frames", num_frames)
        return np.linspace(float(self.first), float(self.last), num_frames, dtype=np.float64)


@dataclass(frozen=True)
class Triangle:
    """0 on the first and last frame, 1 in the middle: w = 1 - |2 f / (T - 1) - 1|.

    With an even T no frame is the exact middle and the two middle ones have (T - 2) / (T - 1). A
    single frame has weight 1; two frames are both ends and have 0.

    Source: TrianglePredictionGuider with period 1 of sgm (SV3D, arXiv:2403.12008), for closed
    orbits.
    """

    default_reducer: ClassVar[str] = "mean"

    def weights(self, num_frames: int, *, fps: Number | None = None) -> Float64[np.ndarray, "T"]:
        """The weight of each pixel frame."""
        check_count("num_frames", num_frames)
        if num_frames == 1:
            return np.ones(1, dtype=np.float64)
        frame_T = np.arange(num_frames, dtype=np.float64)
        return 2.0 * np.minimum(frame_T, frame_T[::-1]) / (num_frames - 1)


@dataclass(frozen=True)
class Trapezoid:
    """0 on the first and last frame, rising over E frames to a plateau of 1.

        w_f = min(1, f / E, (T - 1 - f) / E),  E = edge * T rounded down, from 1 to (T - 1) // 2

    Every T >= 3 has at least one edge frame at each end and at least one frame of full weight. A
    single frame has weight 1; two frames are both ends and have 0.

    Source: TrapezoidPredictionGuider of sgm (edge_perc 0.1), whose plateau is off (1, not the
    scale) and whose edges vanish below 10 frames; neither holds here.
    """

    edge: Number = 0.1

    default_reducer: ClassVar[str] = "mean"

    def __post_init__(self):
        check_number(
            "trapezoid: edge", self.edge, above=0, high=0.5, fix="For no edges use `uniform`."
        )

    def weights(self, num_frames: int, *, fps: Number | None = None) -> Float64[np.ndarray, "T"]:
        """The weight of each pixel frame."""
        check_count("num_frames", num_frames)
        if num_frames == 1:
            return np.ones(1, dtype=np.float64)
        # 0.29 * 100 is 28.999999999999996: a whole number of frames must not lose one to rounding.
        wanted = int(np.floor(self.edge * num_frames + 1e-9))
        edge_frames = max(1, min(wanted, (num_frames - 1) // 2))
        frame_T = np.arange(num_frames, dtype=np.float64)
        return np.minimum(np.minimum(frame_T, frame_T[::-1]) / edge_frames, 1.0)


@dataclass(frozen=True)
class KnotWeights:
    """Linear between the points [[position, weight], ...].

    Position 0 is the first frame, 1 the last. The first and last weight hold beyond the end
    points. A single frame is at position 0.
    """

    points: Pairs

    default_reducer: ClassVar[str] = "mean"

    def __post_init__(self):
        points = check_points("knots weights: points", self.points, low=0.0, high=1.0)
        object.__setattr__(self, "points", points)

    def weights(self, num_frames: int, *, fps: Number | None = None) -> Float64[np.ndarray, "T"]:
        """The weight of each pixel frame."""
        positions, weights = zip(*self.points, strict=True)
        weights_T = np.interp(_frame_positions(num_frames), positions, weights)
        return weights_T.clip(min(weights), max(weights)).astype(np.float64)


FrameWeights = Uniform | Keyframes | Decay | Ramp | Triangle | Trapezoid | KnotWeights

FRAME_WEIGHTS: dict[str, type] = {
    "uniform": Uniform,
    "keyframes": Keyframes,
    "decay": Decay,
    "ramp": Ramp,
    "triangle": Triangle,
    "trapezoid": Trapezoid,
    "knots": KnotWeights,
}


@dataclass(frozen=True)
class FrameWindow:
    """Pixel frames first..last (both included) are guided only while start <= p <= stop.

    Negative frames count from the end. In YAML the ends of the step interval are written `from`
    and `to`; progress p as in `schedules`.
    """

    first: int
    last: int
    start: Number = 0.0
    stop: Number = 1.0

    def __post_init__(self):
        check_interval(f"window of frames {self.first} to {self.last}", self.start, self.stop)

    def frames(self, num_frames: int) -> range:
        """The frame numbers in 0..T-1.

        Raises:
            ValueError: if an end lies outside the video or the first frame is after the last.
        """
        first = _frame_number("windows: first frame", self.first, num_frames)
        last = _frame_number("windows: last frame", self.last, num_frames)
        if first > last:
            raise ValueError(
                f"windows: frames [{self.first}, {self.last}] of {num_frames} run from {first} "
                f"back to {last}. Use [{last}, {first}]."
            )
        return range(first, last + 1)


def window_mask(
    windows: Sequence[FrameWindow], progress_K: Float64[np.ndarray, "K"], num_frames: int
) -> Bool[np.ndarray, "K T"]:
    """Whether pixel frame f is guided at step k, as far as windows decide.

    A frame in no window is always guided. A frame in several is guided while any of them includes
    the step.

    Raises:
        ValueError: if a window's frames are outside the video.
    """
    check_count("num_frames", num_frames)
    in_a_window_T = np.zeros(num_frames, dtype=bool)
    guided_KT = np.zeros((len(progress_K), num_frames), dtype=bool)
    for window in windows:
        frames = window.frames(num_frames)
        inside_K = (progress_K >= window.start) & (progress_K <= window.stop)
        in_a_window_T[frames.start : frames.stop] = True
        guided_KT[:, frames.start : frames.stop] |= inside_K[:, None]
    return guided_KT | ~in_a_window_T
