"""The surface: the strength of guidance at each step and frame. float64, numpy only.

    strength[k, f] = 1 + (scale_k - 1) * w[k, f]

A strength of 1 is off (the plain conditional prediction). A frame of weight 0 keeps its prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from vidcfg.guidance.checks import Number, check_interval_has_step, check_number
from vidcfg.guidance.frame_map import FrameMap
from vidcfg.guidance.frame_weights import FrameWeights, FrameWindow, window_mask
from vidcfg.guidance.schedules import Schedule, active_steps, progress, scale_per_step


@dataclass(frozen=True, eq=False)
class Surface:
    """Scale, weights and strengths of one run of K steps, T pixel frames and F latent frames.

    `progress_K` is k / (K - 1) whatever the schedule follows; the arrays are read-only. `fps` is
    None where unknown.
    """

    progress_K: Float64[np.ndarray, "K"]
    scale_K: Float64[np.ndarray, "K"]
    weights_KT: Float64[np.ndarray, "K T"]
    strength_KT: Float64[np.ndarray, "K T"]
    weights_KF: Float64[np.ndarray, "K F"]
    strength_KF: Float64[np.ndarray, "K F"]
    fps: float | None = None

    def __post_init__(self):
        for array in (self.progress_K, self.scale_K, self.weights_KT, self.strength_KT):
            array.flags.writeable = False
        self.weights_KF.flags.writeable = False
        self.strength_KF.flags.writeable = False

    def to_dict(self) -> dict:
        """Plain lists and numbers for JSON, to the last bit of float64.

        `weights` and `latent_weights` hold one row where every step has the same weights, else K
        rows.
        """
        return {
            "num_steps": self.strength_KT.shape[0],
            "num_frames": self.strength_KT.shape[1],
            "num_latent_frames": self.strength_KF.shape[1],
            "fps": self.fps,
            "progress": self.progress_K.tolist(),
            "scale": self.scale_K.tolist(),
            "weights": _distinct_rows(self.weights_KT),
            "strength": self.strength_KT.tolist(),
            "latent_weights": _distinct_rows(self.weights_KF),
            "latent_strength": self.strength_KF.tolist(),
        }


def _distinct_rows(weights: Float64[np.ndarray, "K N"]) -> list[list[float]]:
    """All rows, or the first alone when they are equal."""
    return weights[:1].tolist() if (weights == weights[:1]).all() else weights.tolist()


def strength_of(
    scale_K: Float64[np.ndarray, "K"], weights: Float64[np.ndarray, "K N"]
) -> Float64[np.ndarray, "K N"]:
    """1 + (scale - 1) * w: exactly `scale` where w is 1, exactly 1 where w is 0 or scale is 1."""
    scale = scale_K[:, None]
    strength = 1.0 + (scale - 1.0) * weights
    return np.where(weights == 1.0, scale, np.where(weights == 0.0, 1.0, strength))


def build_surface(
    schedule: Schedule,
    frames: FrameWeights,
    *,
    num_steps: int,
    num_frames: int,
    frame_map: FrameMap,
    fps: Number | None = None,
    sigmas: Sequence[Number] | np.ndarray | None = None,
    windows: Sequence[FrameWindow] = (),
    reducer: str | None = None,
) -> Surface:
    """The surface of a run of `num_steps` steps and `num_frames` pixel frames.

    Weights are reduced to latent frames by `reducer` (`mean`, `max`, or None for the default of
    `frames`), after windows and steps outside an interval schedule have set weights to 0; the
    strengths follow from the reduced weights.
    Windows go by step progress, also under a schedule over sigma. Off where the scale is 1 on
    every step.

    Raises:
        ValueError: if the VAE cannot make `num_frames`, an interval or window holds no step, or a
            schedule, weight or window does not fit the run.
    """
    frame_map.check(num_frames, "num_frames")
    if fps is not None:
        fps = check_number("fps", fps, above=0)
    progress_K = progress(num_steps)
    scale_K = scale_per_step(schedule, num_steps=num_steps, sigmas=sigmas)
    for window in windows:
        what = f"window of frames {window.first} to {window.last}"
        check_interval_has_step(what, float(window.start), float(window.stop), progress_K)
    active_K = active_steps(schedule, num_steps=num_steps, sigmas=sigmas)
    mask_KT = window_mask(windows, progress_K, num_frames) & active_K[:, None]
    weights_KT = np.where(mask_KT, frames.weights(num_frames, fps=fps), 0.0)
    weights_KF = frame_map.reduce(weights_KT, reducer or frames.default_reducer)
    return Surface(
        progress_K=progress_K,
        scale_K=scale_K,
        weights_KT=weights_KT,
        strength_KT=strength_of(scale_K, weights_KT),
        weights_KF=weights_KF,
        strength_KF=strength_of(scale_K, weights_KF),
        fps=fps,
    )


_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = (17, 18, 24, 30, 36, 71, 113, 185, 220)
_MAX_ROWS = 12
_MAX_CELL = 3


def terminal_heat_map(surface: Surface, width: int = 80, *, colour: bool = False) -> str:
    """The strengths over steps (rows, first on top) and pixel frames (columns) as text.

    At most 12 rows; steps, and frames that do not fit `width` characters, are shown as the mean of
    equal groups. The legend gives the lowest and highest strength of the surface itself. Plain
    mode (default) draws bars, `colour=True` draws ANSI 256-colour cells.
    """
    num_steps, num_frames = surface.strength_KT.shape
    step_groups = np.array_split(np.arange(num_steps), min(num_steps, _MAX_ROWS))
    labels = [_span(group) for group in step_groups]
    label_width = max(len("step"), *(len(label) for label in labels))
    space = max(width - label_width - 2, 8)
    frame_groups = np.array_split(np.arange(num_frames), min(num_frames, space))
    cell = max(1, min(_MAX_CELL, space // len(frame_groups)))
    low, high = float(surface.strength_KT.min()), float(surface.strength_KT.max())

    lines = [f"{'step':>{label_width}}  {_legend(low, high, colour)}"]
    for label, steps in zip(labels, step_groups, strict=True):
        row_T = surface.strength_KT[steps].mean(axis=0)
        cells = [_cell(row_T[group].mean(), low, high, cell, colour) for group in frame_groups]
        lines.append(f"{label:>{label_width}}  {''.join(cells)}")
    drawn = cell * len(frame_groups)
    last = f"{num_frames - 1}"
    axis = "frame 0" if num_frames == 1 else f"frame 0{last:>{max(drawn - 7, len(last) + 1)}}"
    lines.append(f"{'':>{label_width}}  {axis}")
    return "\n".join(lines)


def _span(group: np.ndarray) -> str:
    """The numbers of a group as "3" or "3-5"."""
    return f"{group[0]}" if len(group) == 1 else f"{group[0]}-{group[-1]}"


def _cell(value: float, low: float, high: float, width: int, colour: bool) -> str:
    """`width` characters whose height or colour is where `value` lies in low..high."""
    share = (value - low) / (high - low) if high > low else 1.0
    if colour:
        code = _COLOURS[min(int(share * len(_COLOURS)), len(_COLOURS) - 1)]
        return f"\x1b[48;5;{code}m{' ' * width}\x1b[0m"
    return _BARS[min(int(share * len(_BARS)), len(_BARS) - 1)] * width


def _legend(low: float, high: float, colour: bool) -> str:
    """What the darkest and brightest cells mean."""
    if low == high:
        return f"strength {low:.4g} on every frame (1 = off)"
    darkest = _cell(low, low, high, 1, colour)
    brightest = _cell(high, low, high, 1, colour)
    return f"strength {darkest} {low:.4g} to {brightest} {high:.4g} (1 = off)"
