"""Metrics of one clip, fed frame by frame: memory does not grow with the length of the clip."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from vidcfg.media.video import Video
from vidcfg.metrics.catalogue import measured
from vidcfg.metrics.flicker import (
    change,
    luminance_flicker,
    second_change,
    stride_pulse,
    to_levels,
)
from vidcfg.metrics.flow import MIN_SIZE, Pair
from vidcfg.metrics.frames import check_unit, luma
from vidcfg.metrics.motion import STILL, frozen, jumps, midpoint_error, motion_of
from vidcfg.metrics.record import ClipInfo, Record
from vidcfg.metrics.saturation import (
    clipped_share,
    colour_drift,
    contrast,
    contrast_drift,
    mean_colour,
    saturation,
    sharpness,
)
from vidcfg.metrics.spectrum import TemporalSpectrum
from vidcfg.metrics.warp import ClipResidual, Residual, clip_residual, residual

WEIGHT_FREE = ("flicker", "warp", "motion", "appearance")


class Meter(ABC):
    """Takes the frames of one clip in order, then gives its records.

    `lags` are the distances of the frame pairs it wants: every pair at 1, disjoint pairs beyond.
    """

    lags: tuple[int, ...] = ()

    @abstractmethod
    def add_frame(self, frame: np.ndarray) -> None:
        """The next frame [C, H, W], uint8 or float32 in [0, 1]."""

    def add_pair(self, pair: Pair, lag: int) -> None:  # noqa: B027 - most meters want no pairs
        """The pair that ends with the frame that was just added."""

    @abstractmethod
    def finish(self, clip: ClipInfo) -> list[Record]:
        """The clip's records; called once, after the last frame."""


def measure(frames: Iterable[np.ndarray], meters: Sequence[Meter]) -> int:
    """Feed frames [C, H, W] to meters and return how many there were.

    Pairs are made once for all meters, so that each flow is computed once.
    """
    lags = sorted({lag for meter in meters for lag in meter.lags})
    recent: deque[np.ndarray] = deque(maxlen=1 + max(lags, default=0))
    count = 0
    for frame in frames:
        check_unit(frame)
        recent.append(frame)
        for meter in meters:
            meter.add_frame(frame)
        for lag in lags:
            start = count - lag
            if start >= 0 and start % lag == 0:
                pair = Pair(recent[-1 - lag], frame)
                for meter in meters:
                    if lag in meter.lags:
                        meter.add_pair(pair, lag)
        count += 1
    return count


def measure_video(
    video: Video, *, families: Sequence[str] = WEIGHT_FREE, stride: int = 4
) -> list[Record]:
    """The weight-free records of a clip in memory, such as a decoded tensor before encoding.

    `families` are of flicker, warp, motion and appearance; `stride` is the VAE's temporal stride.
    """
    made: dict[str, Meter] = {
        "flicker": FlickerMeter(stride=stride),
        "warp": WarpMeter(stride=stride),
        "motion": MotionMeter(),
        "appearance": AppearanceMeter(),
    }
    chosen = [made[name] for name in families]
    count = measure(video.frames, chosen)
    clip = ClipInfo(
        num_frames=count,
        height=video.frames.shape[2],
        width=video.frames.shape[3],
        fps=float(video.fps),
        lossless=video.lossless,
        codec=video.codec,
    )
    records = [record for meter in chosen for record in meter.finish(clip)]
    return [replace(record, subject=video.source, clip=clip) for record in records]


class FlickerMeter(Meter):
    """Differences, luminance, temporal spectrum and stride pulse, without motion compensation.

    `stride` is the VAE's temporal stride; 1 leaves the stride pulse out.
    """

    def __init__(self, *, stride: int = 4) -> None:
        self._stride = stride
        self._recent: deque[np.ndarray] = deque(maxlen=3)
        self._change: list[float] = []
        self._energy: list[float] = []
        self._levels: list[float] = []
        self._second: list[float] = []
        self._luma: list[float] = []
        self._spectrum = TemporalSpectrum()

    def add_frame(self, frame: np.ndarray) -> None:
        self._recent.append(frame)
        self._luma.append(float(np.mean(luma(frame), dtype=np.float64)))
        self._spectrum.add(frame)
        if len(self._recent) >= 2:
            pair = self._recent[-2], self._recent[-1]
            absolute, squared = change(*pair)
            self._change.append(absolute)
            self._energy.append(squared)
            is_levels = frame.dtype == np.uint8
            self._levels.append(absolute if is_levels else change(*map(to_levels, pair))[0])
        if len(self._recent) == 3:
            self._second.append(second_change(*self._recent))

    def finish(self, clip: ClipInfo) -> list[Record]:
        status = "static" if is_still(self._change) else "ok"
        return [
            _mean("frame_diff", self._change, status=status),
            _mean("second_diff", self._second, status=status),
            _mean("vbench_temporal_flickering", [1 - d for d in self._levels], status=status),
            _one(
                "luminance_flicker",
                lambda: luminance_flicker(self._luma),
                n=len(self._luma),
                status=status,
                trace=tuple(self._luma),
            ),
            self._high_share(),
            _one(
                "stride_pulse",
                lambda: stride_pulse(self._energy, stride=self._stride),
                n=len(self._energy),
                status=status,
                protocol=f"stride={self._stride}",
                trace=tuple(self._energy),
            ),
        ]

    def _high_share(self) -> Record:
        n = len(self._luma)
        try:
            share = self._spectrum.high_share()
        except ValueError as error:
            return measured("hf_share", None, n=n, reason=str(error), status="skipped")
        if share is None:
            return measured("hf_share", None, n=n, reason="nothing changes in the clip")
        return measured("hf_share", share, n=n)


class WarpMeter(Meter):
    """Motion-compensated flicker between neighbours, and over 2, 4 and 8 frames."""

    def __init__(self, *, stride: int = 4, long_lags: tuple[int, ...] = (2, 4, 8)) -> None:
        self.lags = (1, *long_lags)
        self._stride = stride
        self._residuals: dict[int, list[Residual]] = {lag: [] for lag in self.lags}
        self._is_too_small = False

    def add_frame(self, frame: np.ndarray) -> None:
        self._is_too_small = min(frame.shape[-2:]) < MIN_SIZE

    def add_pair(self, pair: Pair, lag: int) -> None:
        if not self._is_too_small:
            self._residuals[lag].append(residual(pair))

    def finish(self, clip: ClipInfo) -> list[Record]:
        near = self._residuals[1]
        found = self._clip(1)
        trace = tuple(r.absolute for r in near)
        records = [
            self._record("warp_residual", found, lag=1, value=found.absolute, trace=trace),
            self._record("warp_error", found, lag=1, value=found.squared),
        ]
        if found.absolute is None:
            records.append(self._record("warp_stride_pulse", found, lag=1, value=None))
        else:
            records.append(
                _one(
                    "warp_stride_pulse",
                    lambda: stride_pulse([r.squared for r in near], stride=self._stride),
                    n=len(near),
                    protocol=f"stride={self._stride}",
                    extra={"coverage": found.coverage},
                )
            )
        for lag in self.lags[1:]:
            far = self._clip(lag)
            records.append(self._record(f"long_warp_{lag}", far, lag=lag, value=far.absolute))
        return records

    def _clip(self, lag: int) -> ClipResidual:
        if self._is_too_small:
            reason = f"frames are smaller than the {MIN_SIZE} pixels that optical flow needs"
            return ClipResidual(None, None, 0.0, reason)
        if not self._residuals[lag]:
            return ClipResidual(None, None, 0.0, f"the clip has fewer than {lag + 1} frames")
        return clip_residual(self._residuals[lag])

    def _record(self, name: str, found: ClipResidual, *, lag: int, value, **rest) -> Record:
        is_short = not self._residuals[lag]
        if value is None:
            rest["status"] = "skipped" if is_short else "invalid"
        return measured(
            name,
            value,
            n=sum(r.absolute is not None for r in self._residuals[lag]),
            reason=found.reason,
            extra={"coverage": found.coverage},
            **rest,
        )


class MotionMeter(Meter):
    """Dynamic degree, smoothness, frozen pairs and jumps."""

    lags = (1, 2)

    def __init__(self) -> None:
        self._recent: deque[np.ndarray] = deque(maxlen=2)
        self._change: list[float] = []
        self._motion: list[float] = []
        self._is_trusted: list[bool] = []
        self._midpoint: list[float] = []
        self._is_too_small = False

    def add_frame(self, frame: np.ndarray) -> None:
        self._recent.append(frame)
        self._is_too_small = min(frame.shape[-2:]) < MIN_SIZE
        if len(self._recent) == 2:
            self._change.append(change(*self._recent)[0])

    def add_pair(self, pair: Pair, lag: int) -> None:
        if self._is_too_small:
            return
        if lag == 1:
            self._motion.append(motion_of(pair.forward, fps=8))
            self._is_trusted.append(pair.coverage >= 0.5)
        else:
            # The frame before the last one lies in the middle of the pair.
            self._midpoint.append(midpoint_error(pair, self._recent[0]))

    def finish(self, clip: ClipInfo) -> list[Record]:
        pairs = len(self._change)
        status = "static" if is_still(self._change) else "ok"
        # Motion is gathered at 8 frames per second and is proportional to the rate.
        rate = (clip.fps or 8.0) / 8
        motion = [m * rate for m in self._motion]
        too_small = f"frames are smaller than the {MIN_SIZE} pixels that optical flow needs"
        reason = too_small if self._is_too_small else ""
        known = [m if ok else None for m, ok in zip(self._motion, self._is_trusted)]
        known = known if known else [None] * pairs
        smooth = [1 - e for e in self._midpoint]
        is_frozen, is_jump = frozen(self._change), jumps(self._change, known)
        return [
            _mean("dynamic_degree", motion, status=status, reason=reason),
            _mean("motion_smoothness", smooth, status=status, reason=reason),
            _share("freeze_share", is_frozen, status=status),
            _share("jump_share", is_jump, status=status),
        ]


class AppearanceMeter(Meter):
    """Saturation, clipping, contrast and colour, per frame and their drift."""

    def __init__(self) -> None:
        self._saturation: list[float] = []
        self._clipped: list[float] = []
        self._contrast: list[float] = []
        self._sharpness: list[float] = []
        self._colour: list[np.ndarray] = []

    def add_frame(self, frame: np.ndarray) -> None:
        self._saturation.append(saturation(frame))
        self._clipped.append(clipped_share(frame))
        self._contrast.append(contrast(frame))
        self._sharpness.append(sharpness(frame))
        self._colour.append(mean_colour(frame))

    def finish(self, clip: ClipInfo) -> list[Record]:
        n = len(self._contrast)
        colours = np.stack(self._colour)
        way = np.linalg.norm(colours - colours[0], axis=1)
        trace = tuple(float(x) for x in way)
        return [
            _mean("saturation", self._saturation),
            _mean("clipped_share", self._clipped),
            _mean("contrast", self._contrast),
            _mean("sharpness", self._sharpness),
            measured("contrast_drift", contrast_drift(self._contrast), n=n),
            measured("colour_drift", colour_drift(colours), n=n, trace=trace),
        ]


def is_still(change_pairs: Sequence[float]) -> bool:
    """Nothing changes by more than a fortieth of an 8-bit level between any two neighbours."""
    return max(change_pairs, default=0.0) <= STILL


def _mean(name: str, values: Sequence[float], *, reason: str = "", status: str = "ok") -> Record:
    """The mean of a trace, with the trace; skipped if it is empty."""
    if not len(values):
        reason = reason or "the clip has too few frames"
        return measured(name, None, n=0, reason=reason, status="skipped")
    trace = tuple(float(v) for v in values)
    return measured(name, float(np.mean(trace)), n=len(trace), trace=trace, status=status)


def _share(name: str, flags: np.ndarray, *, status: str) -> Record:
    return _mean(name, [float(flag) for flag in flags], status=status)


def _one(name: str, compute, *, n: int, **rest) -> Record:
    """A value of the whole clip, or skipped with the reason that `compute` gives."""
    try:
        return measured(name, compute(), n=n, **rest)
    except ValueError as error:
        return measured(name, None, n=n, reason=str(error), **rest | {"status": "skipped"})
