"""The surface: the strength of guidance at each step and frame. float64, numpy only.

    strength[k, f] = 1 + (scale_k - 1) * w[k, f]

A strength of 1 is off (the plain conditional prediction). A frame of weight 0 keeps its prompt.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np

from vidcfg.guidance.frame_map import FrameMap
from vidcfg.guidance.frames import FrameWeights
from vidcfg.guidance.matrix import parted
from vidcfg.guidance.rule import Rule
from vidcfg.guidance.schedule import Schedule, positions, progress, within
from vidcfg.guidance.shapes import Float64
from vidcfg.guidance.windows import Window, window_mask
from vidcfg.settings.base import Finding
from vidcfg.settings.errors import Path, dotted


@dataclass(frozen=True, eq=False)
class Surface:
    """Scale, weights and strengths of one run of K steps, T pixel frames and F latent frames.

    `progress_K` is k / (K - 1) whatever the schedule follows; the arrays are read-only. `fps` is
    None where unknown. Where frames have noise levels of their own a row is a call of the denoiser
    (`by_frame`). `is_evened` tells that weights differ between pixel frames and not between latent
    frames.
    """

    progress_K: Float64[np.ndarray, "K"]
    scale_K: Float64[np.ndarray, "K"]
    weights_KT: Float64[np.ndarray, "K T"]
    strength_KT: Float64[np.ndarray, "K T"]
    weights_KF: Float64[np.ndarray, "K F"]
    strength_KF: Float64[np.ndarray, "K F"]
    fps: float | None = None
    is_evened: bool = False

    def __post_init__(self):
        for array in (v for v in vars(self).values() if isinstance(v, np.ndarray)):
            array.flags.writeable = False

    def by_frame(self, step_NF: np.ndarray, latent_T: np.ndarray) -> "Surface":
        """Row n has latent frame f as it is on step `step_NF[n, f]`, and off where that is -1.

        Pixel frame t goes with latent frame `latent_T[t]`. Scale and progress of a row are those
        of its latest step.
        """
        made = {}
        for at, step in (("T", step_NF[:, latent_T]), ("F", step_NF)):
            place = np.maximum(step, 0), np.arange(step.shape[1])
            for name, off in (("weights", 0.0), ("strength", 1.0)):
                values = getattr(self, f"{name}_K{at}")[place]
                made[f"{name}_K{at}"] = np.where(step >= 0, values, off)
        latest = step_NF.max(axis=1)
        return replace(
            self, progress_K=self.progress_K[latest], scale_K=self.scale_K[latest], **made
        )

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


EVENED = (
    "note: guidance.frames has no effect: a latent frame is made of several frames of the video, "
    "and each has the same weight. Write uniform, or weights that differ between latent frames."
)
"""What is told of a surface that `is_evened`."""


def _distinct_rows(weights: Float64[np.ndarray, "K N"]) -> list[list[float]]:
    """All rows, or the first alone when they are equal."""
    return weights[:1].tolist() if (weights == weights[:1]).all() else weights.tolist()


def strength_of(
    scale: Float64[np.ndarray, "K #N"], weights: Float64[np.ndarray, "K N"]
) -> Float64[np.ndarray, "K N"]:
    """1 + (scale - 1) * w: exactly `scale` where w is 1, exactly 1 where w is 0 or scale is 1."""
    strength = 1.0 + (scale - 1.0) * weights
    return np.where(weights == 1.0, scale, np.where(weights == 0.0, 1.0, strength))


def _one_each(values: Any, count: int, path: Path, what: str) -> np.ndarray:
    """What a schedule or frame weighting gave for each step or frame, checked, as float64.

    Raises:
        ValueError: unless they are `count` finite numbers, or rows of them; weights are from 0 to
            1000.
    """
    gave = np.asarray(values, dtype=np.float64)
    each, low, high = ("frame", 0, 1000) if what == "weight" else ("step", -np.inf, np.inf)
    where = f"{dotted(('guidance', *path))} gives"
    if gave.shape[:1] != (count,) or gave.ndim > (1 if what == "weight" else 2):
        raise ValueError(
            f"{where} an array of shape {gave.shape}. Return {count}, one per {each}."
        )
    for place in np.argwhere(~(np.isfinite(gave) & (gave >= low) & (gave <= high)))[:1]:
        fix = "number from 0 to 1, or up to 1000" if what == "weight" else "finite number"
        raise ValueError(
            f"{where} {each} {place[0]} the {what} {gave[tuple(place)]:g}. Return a {fix}."
        )
    return gave


@dataclass(frozen=True)
class Term:
    """One rule with the strengths that are in force for it.

    `reduce` is how a latent frame takes its weight: mean, max, or auto for what the frames say.
    `above` is where the rule is written below `guidance`, `at` where each of its strengths is.
    `numbers` are all scales that are written, those of every expert; `is_off` tells that they
    guide no step.
    """

    rule: Rule
    scale: Schedule | dict[str, Schedule]
    frames: FrameWeights
    windows: tuple[Window, ...]
    reduce: str
    above: Path
    at: dict[str, Path]
    numbers: tuple[float, ...]
    is_off: bool

    def check_run(
        self, num_steps: int, num_frames: int, fps: float | int | None
    ) -> Iterator[Finding]:
        """What cannot work in a run. What a schedule over sigma does is for its surface to say."""
        progress_K = progress(num_steps)
        is_dict, active_K = isinstance(self.scale, dict), np.ones(num_steps, dtype=bool)
        # A window that several rules share may be meant for another one.
        is_own = len(self.above) == 1 or "windows" in self.rule.own
        for name, part in (self.scale if is_dict else {None: self.scale}).items():
            here = (*self.at["scale"], name) if is_dict else self.at["scale"]
            if part.over == "progress":
                yield from (found.below(*here) for found in part.check_run(progress_K))
                active_K = within(*part.span, progress_K) if is_own and not is_dict else active_K
        yield from (found.below(*self.above) for found in self.rule.check_run(num_steps))
        for i, window in enumerate(self.windows):
            found = window.check_run(progress_K, num_frames, active_K)
            yield from (one.below(*self.at["windows"], i) for one in found)
        found = self.frames.check_run(num_frames, fps)
        yield from (one.below(*self.at["frames"]) for one in found)

    def surface(
        self,
        *,
        num_steps: int,
        num_frames: int,
        frame_map: FrameMap,
        fps: float | int | None = None,
        sigmas: Any = None,
        experts: tuple[str, ...] | None = None,
        part_T: np.ndarray | None = None,
    ) -> Surface:
        """The surface of a run of `num_steps` steps and `num_frames` pixel frames.

        A run that makes a part of the video gets the surface of those frames: `part_T` holds their
        numbers, in the order of the run's own, to which `frame_map` belongs.

        Weights are reduced to latent frames after windows and steps outside an interval schedule
        have set weights to 0; the strengths follow from the reduced weights. Windows go by step
        progress, also under a schedule over sigma. `experts` names the model of each step (None:
        one model). Off where the scale is 1 on every step.

        Raises:
            ValueError: if the VAE cannot make `num_frames`, an interval or window holds no step, a
                schedule, weight or window does not fit the run, or the scale names experts for a
                pipeline that has none, or misses one.
        """
        run = {"num_frames": num_frames, "frame_map": frame_map, "fps": fps, "sigmas": sigmas}
        run["part_T"] = part_T
        if isinstance(self.scale, dict):
            return self._by_expert(experts or (), num_steps=num_steps, **run)
        frame_map.check(num_frames if part_T is None else len(part_T), "num_frames")
        if fps is not None and not 0 < fps < float("inf"):
            raise ValueError(f"fps is {fps!r}, but must be a number above 0.")
        position_K = positions(self.scale.over, num_steps, sigmas)
        by_position = (f.below(*self.at["scale"]) for f in self.scale.check_run(position_K))
        for found in chain(self.check_run(num_steps, num_frames, fps), by_position):
            raise ValueError(f"guidance.{found}")

        # Scale: its numbers are read in the rule's convention, here and nowhere else.
        written = self.scale.raised() if self.rule.off_value == 0 else self.scale
        scale_K = _one_each(written.values(position_K), num_steps, self.at["scale"], "scale")
        scale_KN = scale_K.reshape(num_steps, -1)

        # Weights: those of the frames, 0 where a window or an interval leaves the frame alone.
        progress_K = progress(num_steps)
        mask_KT = window_mask(self.windows, progress_K, num_frames)
        mask_KT = mask_KT & within(*self.scale.span, position_K)[:, None]
        weights_T = self.frames.weights(num_frames, fps=fps)
        weights_T = _one_each(weights_T, num_frames, self.at["frames"], "weight")
        weights_KT = np.where(mask_KT, weights_T, 0.0)
        weights_KT = weights_KT if part_T is None else weights_KT[:, part_T]
        reducer = self.frames.reducer if self.reduce == "auto" else self.reduce
        weights_KF = frame_map.reduce(weights_KT, reducer)

        # A matrix has its own scale for each frame: what a frame takes of the step's is weight.
        scale_KT = scale_KF = scale_KN
        scale_K, share_KT, share_KF = scale_KN[:, 0], 1.0, 1.0
        if scale_KN.shape[1] > 1:
            latent_T = self._columns(scale_KN, frame_map, weights_KT.shape[1], part_T)
            scale_K, share_KF = parted(scale_KN)
            scale_KT, share_KT = scale_KN[:, latent_T], share_KF[:, latent_T]

        shares_KT, shares_KF = weights_KT * share_KT, weights_KF * share_KF
        pixels_differ, latents_differ = ((w != w[:, :1]).any() for w in (shares_KT, shares_KF))
        return Surface(
            progress_K=progress_K,
            scale_K=scale_K,
            weights_KT=shares_KT,
            strength_KT=strength_of(scale_KT, weights_KT),
            weights_KF=shares_KF,
            strength_KF=strength_of(scale_KF, weights_KF),
            fps=None if fps is None else float(fps),
            is_evened=bool(pixels_differ and not latents_differ),
        )

    def _columns(
        self, scale_KN: np.ndarray, frame_map: FrameMap, num_pixels: int, part_T: Any
    ) -> np.ndarray:
        """The column of each pixel frame: the number of its latent frame.

        Raises:
            ValueError: if there is not one column per latent frame.
        """
        num_steps, num_columns = scale_KN.shape
        sizes = [len(pixels) for pixels in frame_map.pixels_of(num_pixels)]
        what = f"{dotted(('guidance', *self.at['scale']))} has {num_columns} columns"
        if part_T is not None:
            raise ValueError(
                f"{what}, but this pipeline makes the video in parts, whose latent frames are not "
                f"those of the whole. Give one scale per step, and weights as guidance.frames."
            )
        if num_columns != len(sizes):
            raise ValueError(
                f"{what}, but the run has {len(sizes)} latent frames ({num_pixels} frames of "
                f"video). Give a matrix of shape ({num_steps}, {len(sizes)}), ({num_steps}, 1) "
                f"or (1, {len(sizes)})."
            )
        return np.repeat(np.arange(len(sizes)), sizes)

    def _by_expert(self, experts: tuple[str, ...], **run: Any) -> Surface:
        """The surface whose row k is that of the expert of step k."""
        present = tuple(dict.fromkeys(experts))
        if not present or set(present) - set(self.scale):
            known = ", ".join(present) or "one model, without experts"
            raise ValueError(
                f"guidance.scale names the experts {', '.join(self.scale)}, "
                f"but this pipeline has {known}. Use one scale per expert, or a single scale."
            )
        made = {name: replace(self, scale=self.scale[name]).surface(**run) for name in present}
        assert len(experts) == run["num_steps"], "one expert per step"
        for name in present:
            steps, part = [k for k, e in enumerate(experts) if e == name], self.scale[name]
            position_K = positions(part.over, run["num_steps"], run["sigmas"])
            if not within(*part.span, position_K)[steps].any():
                raise ValueError(
                    f"{dotted(('guidance', *self.at['scale'], name))} guides no step: {name} runs "
                    f"from {position_K[steps[0]]:.4g} to {position_K[steps[-1]]:.4g}, where its "
                    f"interval is off. Widen the interval."
                )
        arrays = {
            item.name: np.stack([getattr(made[e], item.name)[k] for k, e in enumerate(experts)])
            for item in fields(Surface)
            if item.name.split("_")[-1].startswith("K")
        }
        return replace(made[present[0]], **arrays)
