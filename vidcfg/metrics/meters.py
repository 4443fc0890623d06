"""Metrics of one clip, fed frame by frame: memory does not grow with the length of the clip."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vidcfg.media.video import Video
from vidcfg.metrics.flicker import CHANGE, STILL
from vidcfg.metrics.flow import Pair, View
from vidcfg.metrics.metric import (
    FAMILIES,
    WEIGHT_FREE,
    Metric,
    Quantity,
    Shot,
    measured,
    metrics_of,
    over_shots,
    skipped,
)
from vidcfg.metrics.record import Backend, ClipInfo, Record
from vidcfg.metrics.shots import with_cuts
from vidcfg.metrics.weight_files import MissingWeightsError


class Meter(ABC):
    """Takes the frames of one clip in order, then gives its records.

    `lags` are the distances of the frame pairs it wants, `backend` the net behind its values.
    """

    lags: Sequence[int] = ()
    backend: Backend | None = None

    def start_shot(self, start: int) -> None:  # noqa: B027 - what is of single frames goes on
        """The frame that comes next, number `start`, is the first after a cut."""

    @abstractmethod
    def add_frame(self, frame: np.ndarray) -> None:
        """The next frame [C, H, W], uint8 or float32 in [0, 1]."""

    def add_pair(self, pair: Pair) -> None:  # noqa: B027 - most meters want no pairs
        """A pair that ends with the frame that was just added."""

    @abstractmethod
    def finish(self) -> list[Record]:
        """The clip's records; called once, after the last frame."""


def measure(frames: Iterable[np.ndarray], meters: Sequence[Meter]) -> int:
    """Feed frames [C, H, W] to meters and return how many there were.

    No pair reaches over a cut. Pairs are made once for all meters, so that each flow is computed
    once.

    Raises:
        ValueError: frames of another type than uint8 or float32, or outside [0, 1].
    """
    lags = sorted({lag for meter in meters for lag in meter.lags})
    recent: deque[View] = deque(maxlen=1 + max(lags, default=0))
    count, pairs = 0, {}
    # In one piece: OpenCV rounds another way at the ends of rows.
    for frame, starts_shot in with_cuts(map(np.ascontiguousarray, frames)):
        if starts_shot:
            recent.clear()
            pairs = {}
            for meter in meters:
                meter.start_shot(count)
        recent.append(View(frame))
        for meter in meters:
            meter.add_frame(frame)
        before = pairs
        pairs = {
            lag: Pair((recent[-1 - lag], recent[-1]), lag, start=count - lag)
            for lag in (1, *lags)
            if lag < len(recent)
        }
        # Three frames are two pairs of neighbours: what they search is searched once.
        if 2 in pairs:
            pairs[2] = replace(pairs[2], halves=(before[1], pairs[1]))
        for lag, pair in pairs.items():
            for meter in meters:
                if lag in meter.lags:
                    meter.add_pair(pair)
        count += 1
    return count


class ClipMeasures(Meter):
    """All metrics without weights: what they need is taken once and kept by quantity.

    Metrics are of shots: `clip[quantity]` is what was taken since the last cut, at frame `start`.
    `stride` is the VAE's temporal stride, 1 for none, `shorter_side` that of the frames in pixels.
    """

    def __init__(
        self, metrics: Iterable[Metric], *, stride: int = 4, fps: int | float | None = None
    ) -> None:
        self.metrics = list(metrics)
        self.stride, self.fps, self.shorter_side = stride, fps or 8.0, 0
        self.start = self._num_frames = 0
        self._shots: list[Shot] = []
        self._is_still = True
        needed = [quantity for metric in self.metrics for quantity in metric.needs]
        needed += [CHANGE] if any(metric.marks_still for metric in self.metrics) else []
        self._kept = {quantity: quantity.into() for quantity in needed}
        self.lags = sorted({quantity.lag for quantity in self._kept} - {0})

    def __getitem__(self, quantity: Quantity) -> Any:
        return self._kept[quantity]

    def too_small(self, quantity: Quantity) -> str:
        """Why there is none of a quantity in frames of this size; empty if there is."""
        if self.shorter_side >= quantity.least:
            return ""
        return f"frames are smaller than the {quantity.least} pixels that optical flow needs"

    def add_frame(self, frame: np.ndarray) -> None:
        self.shorter_side = min(frame.shape[-2:])
        self._num_frames += 1
        self._take(frame, lag=0, start=0)

    def add_pair(self, pair: Pair) -> None:
        self._take(pair, lag=pair.lag, start=pair.start)

    def _take(self, source: Any, *, lag: int, start: int) -> None:
        for quantity, kept in self._kept.items():
            is_due = quantity.lag == lag and start % quantity.step == 0
            if is_due and not self.too_small(quantity):
                kept.append(quantity.of(source))

    def start_shot(self, start: int) -> None:
        self._end_shot()
        self.start, self._num_frames = start, 0
        self._kept = {quantity: quantity.into() for quantity in self._kept}

    def _end_shot(self) -> None:
        changes = [absolute for absolute, _ in self._kept.get(CHANGE, ())]
        self._is_still &= max(changes, default=0.0) <= STILL
        outcomes = [metric.outcome(self) for metric in self.metrics]
        self._shots.append(Shot(self.start, self._num_frames, outcomes))

    def finish(self) -> list[Record]:
        self._end_shot()
        cuts, made = [shot.start for shot in self._shots[1:]], []
        for index, metric in enumerate(self.metrics):
            outcome = over_shots(metric, self._shots, index)
            if metric.marks_still and self._is_still and outcome["value"] is not None:
                outcome["status"] = "static"
            if cuts:
                outcome["extra"] = outcome.get("extra", {}) | {"cuts": cuts}
            made.append(measured(metric.name, **outcome))
        return made


def meters_for(
    families: Sequence[str], settings: Any, *, stride: int, fps: float, prompt: str | None
) -> tuple[list[Meter], list[Record]]:
    """The meters of families of metrics, and null records of those whose weights are missing.

    Families of feature nets have none. `settings` has what nets are loaded with, as
    `evaluate.settings.Settings`.
    """
    free = [m for name in families if FAMILIES[name].is_free for m in metrics_of(name)]
    meters: list[Meter] = [ClipMeasures(free, stride=stride, fps=fps)] if free else []
    absent: list[Record] = []
    for name, family in FAMILIES.items():
        if name not in families or not family.has_weights:
            continue
        module = family.load()
        try:
            meters.append(module.load_meter(settings, prompt=prompt, fps=fps))
        except MissingWeightsError as error:
            null, label = skipped(str(error)), module.label(settings)
            absent += [measured(f"{m.name}[{label}]", **null) for m in metrics_of(name)]
    return meters, absent


def measure_video(
    video: Video, *, families: Sequence[str] = WEIGHT_FREE, stride: int = 4
) -> list[Record]:
    """The weight-free records of a clip in memory, such as a decoded tensor before encoding.

    `families` are weight-free ones; `stride` is the VAE's temporal stride.
    """
    chosen = [m for name in families for m in metrics_of(name)]
    meter = ClipMeasures(chosen, stride=stride, fps=float(video.fps))
    count, (height, width) = measure(video.frames, [meter]), video.frames.shape[2:]
    clip = ClipInfo(count, height, width, float(video.fps), video.lossless, video.codec)
    return [replace(record, subject=video.source, clip=clip) for record in meter.finish()]
