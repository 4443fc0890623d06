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
from vidcfg.metrics.features.base import FeatureNet, load_net
from vidcfg.metrics.frames import to_unit
from vidcfg.metrics.meters import Meter, measure, meters_for
from vidcfg.metrics.record import ClipInfo, Record
from vidcfg.metrics.weight_files import MissingWeightsError

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
    stride = settings.stride or item.stride or DEFAULT_STRIDE
    facts = {"stride": stride, "fps": clip.fps, "prompt": item.prompt}
    meters, absent = meters_for(settings.families, settings, **facts)
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
