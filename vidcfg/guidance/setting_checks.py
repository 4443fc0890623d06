"""What guidance means for a clip of a given length and number of steps, in plain arithmetic."""

import math
from collections.abc import Iterator

from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.setting_frames import (
    KeyframesFrames,
    TrapezoidFrames,
    TriangleFrames,
    UniformFrames,
    seconds_of,
)
from vidcfg.guidance.setting_schedules import IntervalSchedule, ListSchedule, schedules_of
from vidcfg.settings.base import ConfigModel, Finding
from vidcfg.settings.errors import Path


def check_run(
    guidance: Guidance, *, num_steps: int, num_frames: int, fps: float | int | None = None
) -> Iterator[Finding]:
    """What cannot work, or has no effect, for `num_frames` pixel frames in `num_steps` steps.

    Paths are relative to `guidance`. Times such as `1.5s` are checked only where `fps` is given.
    """
    yield from _check_steps(guidance, num_steps)
    yield from _check_frames(guidance, num_frames, fps)


def step_progress(num_steps: int) -> list[float]:
    """p_k = k / (K - 1), and [0] for one step."""
    return [k / max(num_steps - 1, 1) for k in range(num_steps)]


def _check_steps(guidance: Guidance, num_steps: int) -> Iterator[Finding]:
    for written, scale in {t.path("scale"): t.scale for t in guidance.terms}.items():
        for path, schedule in schedules_of(scale).items():
            yield from _check_schedule((*written, *path), schedule, num_steps)
    for term in guidance.terms:
        zeroed = getattr(term.method, "zero_init_steps", 0)
        if zeroed >= num_steps:
            message = (
                f"is {zeroed}, but sampling.num_steps is {num_steps}, so that no step is left. "
                f"Write {'0' if num_steps == 1 else f'at most {num_steps - 1}'}."
            )
            yield Finding((*term.above, "zero_init_steps"), message)
    for written, windows in {t.path("windows"): t.windows for t in guidance.terms}.items():
        for i, window in enumerate(windows):
            yield from _check_interval((*written, i), window.start, window.stop, num_steps)


def _check_schedule(here: Path, schedule: ConfigModel, num_steps: int) -> Iterator[Finding]:
    if isinstance(schedule, ListSchedule) and len(schedule.values) != num_steps:
        yield Finding(
            here,
            f"has {len(schedule.values)} numbers, but sampling.num_steps is {num_steps}. "
            "Give one number per step, or use kind: knots.",
        )
    if isinstance(schedule, IntervalSchedule) and schedule.over == "progress":
        yield from _check_interval(here, schedule.start, schedule.stop, num_steps)


def _check_interval(path, start: float, stop: float, num_steps: int) -> Iterator[Finding]:
    steps = step_progress(num_steps)
    if start > stop or any(start <= p <= stop for p in steps):
        return
    below = max((p for p in steps if p < start), default=None)
    above = min((p for p in steps if p > stop), default=None)
    near = " and ".join(f"{p:.4g}" for p in (below, above) if p is not None)
    yield Finding(
        path,
        f"guides no step: none of the {num_steps} steps lies from {start:g} to {stop:g}; "
        f"the nearest are at {near}. Widen the interval.",
    )


def _check_frames(
    guidance: Guidance, num_frames: int, fps: float | int | None
) -> Iterator[Finding]:
    for path, frames in {t.path("frames"): t.frames for t in guidance.terms}.items():
        yield from _check_weights(path, frames, num_frames, fps)
    for path, windows in {t.path("windows"): t.windows for t in guidance.terms}.items():
        for i, window in enumerate(windows if num_frames > 1 else ()):
            yield from _check_window((*path, i, "frames"), window.frames, num_frames)


def _check_weights(
    path: Path, frames: ConfigModel, num_frames: int, fps: float | int | None
) -> Iterator[Finding]:
    if num_frames == 1 and not isinstance(frames, UniformFrames):
        yield Finding(path, "has no effect: video.num_frames is 1. Write uniform.")
        return
    if isinstance(frames, KeyframesFrames):
        for i, place in enumerate(frames.at):
            yield from _check_keyframe((*path, "at", i), place, num_frames, fps)
        if {_frame_of(place, num_frames, fps) for place in frames.at} >= set(range(num_frames)):
            message = "has no effect: every frame is a keyframe. Write uniform."
            yield Finding(path, message)
    if isinstance(frames, TriangleFrames | TrapezoidFrames) and num_frames == 2:
        message = "gives both of 2 frames weight 0. Use 3 frames or more, or another kind."
        yield Finding(path, message)


def _check_keyframe(
    path, place: int | str, num_frames: int, fps: float | int | None
) -> Iterator[Finding]:
    seconds = seconds_of(place)
    if isinstance(place, int) and not -num_frames <= place < num_frames:
        yield Finding(
            path,
            f"is {place}, but the clip has frames 0 to {num_frames - 1} "
            f"(or {-num_frames} to -1 from the end).",
        )
    if seconds is not None and fps is not None and _frame_of(place, num_frames, fps) >= num_frames:
        last = (num_frames - 1) / fps
        yield Finding(
            path,
            f"is '{place}', but the last of {num_frames} frames at {fps:g} fps is at {last:g}s. "
            "Write an earlier time, or last.",
        )


def _frame_of(place: int | str, num_frames: int, fps: float | int | None) -> int | None:
    """The frame number of a place, a tie going to the later frame; None for a time without fps."""
    words = {"first": 0, "middle": (num_frames - 1) // 2, "last": num_frames - 1}
    if isinstance(place, str) and place in words:
        return words[place]
    if isinstance(place, int):
        return place % num_frames
    return None if fps is None else math.floor(seconds_of(place) * fps + 0.5)


def _check_window(path, frames: tuple[int, int], num_frames: int) -> Iterator[Finding]:
    told = f"is [{frames[0]}, {frames[1]}], but"
    if any(not -num_frames <= frame < num_frames for frame in frames):
        yield Finding(
            path,
            f"{told} the clip has frames 0 to {num_frames - 1} "
            f"(or {-num_frames} to -1 from the end).",
        )
        return
    first, last = (frame % num_frames for frame in frames)
    if first > last:
        yield Finding(path, f"{told} frame {first} is after frame {last}. Swap them.")
