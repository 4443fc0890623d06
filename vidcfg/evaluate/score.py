"""One video: decoded once, everything measured."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

import numpy as np

from vidcfg.evaluate.inputs import Item
from vidcfg.evaluate.settings import Settings
from vidcfg.media.probe import VideoInfo, probe
from vidcfg.media.read import iter_chunks
from vidcfg.media.video import MediaError
from vidcfg.metrics.catalogue import clip_names, lpips_names, measured
from vidcfg.metrics.features.base import FeatureNet, load_net
from vidcfg.metrics.frames import to_unit
from vidcfg.metrics.meters import (
    AppearanceMeter,
    FlickerMeter,
    Meter,
    MotionMeter,
    WarpMeter,
    measure,
)
from vidcfg.metrics.record import ClipInfo, Record
from vidcfg.metrics.weight_files import MissingWeightsError, find_weights

DEFAULT_STRIDE = 4


@dataclass(frozen=True, eq=False)
class Scored:
    """The records of a video, and the clips that feature nets take from it.

    `problems` has the reason for every net without a clip.
    """

    item: Item
    records: list[Record]
    clips: dict[str, np.ndarray]
    problems: dict[str, str]
    clip: ClipInfo | None


class ClipCollector(Meter):
    """Keeps the first frames of a video for a feature net."""

    def __init__(self, num_frames: int) -> None:
        self._num_frames = num_frames
        self.frames: list[np.ndarray] = []

    def add_frame(self, frame: np.ndarray) -> None:
        if len(self.frames) < self._num_frames:
            self.frames.append(frame)

    def finish(self, clip: ClipInfo) -> list[Record]:
        return []


def score_video(item: Item, settings: Settings) -> Scored:
    """Decode a video once and measure all that is asked for.

    A file that cannot be read gives one record, `read`, with status `failed` and the reason.
    """
    try:
        info = probe(item.path, fps=settings.fps)
        clip = clip_info(info, enlarge=item.enlarge)
        scored = score_frames(_frames(info, enlarge=item.enlarge), item, settings, clip=clip)
    except (MediaError, ValueError) as error:
        return Scored(item, [failed(item, str(error))], {}, {}, None)
    if not info.is_variable_rate:
        return scored
    marked = [replace(r, extra=r.extra | {"variable_rate": True}) for r in scored.records]
    return replace(scored, records=marked)


def score_frames(
    frames: Iterable[np.ndarray], item: Item, settings: Settings, *, clip: ClipInfo
) -> Scored:
    """Measure all that is asked for on frames [C, H, W], which `clip` describes.

    Raises:
        ValueError: if the frames cannot be measured.
    """
    meters, absent = build_meters(item, settings, fps=clip.fps)
    collectors, problems = _collectors(settings)
    # Only feature nets: the frames after their clip are of no use.
    needed = None if meters else max((c._num_frames for c in collectors.values()), default=0)
    measure(islice(frames, needed), [*meters, *collectors.values()])
    records = [record for meter in meters for record in meter.finish(clip)] + absent
    clips = {}
    for name, collector in collectors.items():
        net = cached_net(name, settings)
        if len(collector.frames) < net.min_frames:
            problems[name] = (
                f"{name} needs {net.min_frames} frames, the video has {len(collector.frames)}"
            )
        else:
            clips[name] = net.prepare(np.stack(collector.frames))
    records = [replace(r, subject=item.name, clip=clip) for r in records]
    return Scored(item, records, clips, problems, clip)


def failed(item: Item, reason: str) -> Record:
    """The record of a file that could not be scored."""
    return Record(
        name="read",
        value=None,
        n=0,
        protocol="decode",
        status="failed",
        skipped_reason=reason,
        subject=item.name,
    )


def clip_info(info: VideoInfo, *, enlarge: int = 1) -> ClipInfo:
    return ClipInfo(
        num_frames=info.num_frames,
        height=info.height // enlarge,
        width=info.width // enlarge,
        fps=info.fps,
        lossless=info.lossless,
        codec=info.codec,
    )


def build_meters(
    item: Item, settings: Settings, *, fps: float
) -> tuple[list[Meter], list[Record]]:
    """The meters of the chosen families, and null records of those whose weights are missing."""
    stride = settings.stride or item.stride or DEFAULT_STRIDE
    plain = {
        "flicker": lambda: FlickerMeter(stride=stride),
        "warp": lambda: WarpMeter(stride=stride),
        "motion": MotionMeter,
        "appearance": AppearanceMeter,
    }
    meters = [plain[name]() for name in settings.families if name in plain]
    nets = {
        "lpips": (lpips_names(settings.lpips_net), _lpips_meter),
        "clip": (clip_names(settings.clip_model), _clip_meter),
    }
    absent: list[Record] = []
    for family, (names, build) in nets.items():
        if family not in settings.families:
            continue
        try:
            meters.append(build(item, settings, fps))
        except MissingWeightsError as error:
            reason = str(error)
            absent += [measured(n, None, n=0, reason=reason, status="skipped") for n in names]
    return meters, absent


def _lpips_meter(item: Item, settings: Settings, fps: float) -> Meter:
    # Without the weights there is no need to load torch.
    find_weights(f"lpips-{settings.lpips_net}", paths=settings.paths)
    from vidcfg.metrics.lpips import LpipsMeter

    return LpipsMeter(cached_lpips(settings), batch_size=settings.batch_size)


def _clip_meter(item: Item, settings: Settings, fps: float) -> Meter:
    from vidcfg.metrics.clip import ClipMeter

    model = cached_clip(settings)
    return ClipMeter(model, item.prompt, fps=fps, batch_size=settings.batch_size)


def _collectors(settings: Settings) -> tuple[dict[str, ClipCollector], dict[str, str]]:
    collectors, problems = {}, {}
    for name in settings.nets:
        try:
            collectors[name] = ClipCollector(cached_net(name, settings).num_frames)
        except MissingWeightsError as error:
            problems[name] = str(error)
    return collectors, problems


def _frames(info: VideoInfo, *, enlarge: int) -> Iterator[np.ndarray]:
    for chunk in iter_chunks(info):
        for frame in chunk:
            yield native(frame, enlarge, lossless=info.lossless) if enlarge > 1 else frame


def native(frame: np.ndarray, enlarge: int, *, lossless: bool | None) -> np.ndarray:
    """The frame before it was enlarged by repeating pixels: picked if lossless, else averaged."""
    channels, height, width = frame.shape
    if height % enlarge or width % enlarge:
        raise ValueError(
            f"its record says that it was enlarged {enlarge} times, which does not fit its "
            f"{height} x {width} pixels"
        )
    if lossless:
        return np.ascontiguousarray(frame[:, ::enlarge, ::enlarge])
    blocks = to_unit(frame).reshape(
        channels, height // enlarge, enlarge, width // enlarge, enlarge
    )
    return np.clip(blocks.mean(axis=(2, 4), dtype=np.float32), 0, 1)


def cached_net(name: str, settings: Settings) -> FeatureNet:
    """The feature net, loaded once a process."""
    paths = tuple(sorted(settings.paths.items()))
    return _cached_net(name, settings.protocol, paths, settings.device)


@lru_cache(maxsize=4)
def _cached_net(name: str, protocol: str, paths: tuple, device: str) -> FeatureNet:
    return load_net(name, protocol=protocol, paths=dict(paths), device=device)


def cached_lpips(settings: Settings):
    """The LPIPS net, loaded once a process."""
    paths = tuple(sorted(settings.paths.items()))
    return _cached_lpips(settings.lpips_net, paths, settings.device)


@lru_cache(maxsize=2)
def _cached_lpips(net: str, paths: tuple, device: str):
    from vidcfg.metrics.lpips import load_lpips

    return load_lpips(net, paths=dict(paths), device=device)


def cached_clip(settings: Settings):
    """The CLIP model, loaded once a process."""
    return _cached_clip(settings.clip_model, settings.device)


@lru_cache(maxsize=2)
def _cached_clip(model: str, device: str):
    from vidcfg.metrics.clip import load_clip

    return load_clip(model, device=device)
