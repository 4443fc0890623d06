"""One video: decoded once, everything measured."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice

import numpy as np

from vidcfg.evaluate.inputs import Item
from vidcfg.evaluate.settings import Settings
from vidcfg.media.probe import VideoInfo, probe
from vidcfg.media.read import iter_frames
from vidcfg.metrics.features.base import FeatureNet, load_net
from vidcfg.metrics.frames import to_unit
from vidcfg.metrics.meters import measure, meters_for
from vidcfg.metrics.record import ClipInfo, Record
from vidcfg.metrics.weight_files import MissingWeightsError
from vidcfg.progress import printable

DEFAULT_STRIDE = 4

Step = Callable[..., None]
"""Is told the frames done, how many there are, and the video's name as `what`."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The records of a video, and the clips that feature nets take from it.

    `problems` has the reason for every net without a clip; `vectors` fills with features by net.
    """

    item: Item
    records: list[Record]
    clips: dict[str, np.ndarray] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    clip: ClipInfo | None = None
    vectors: dict[str, np.ndarray] = field(default_factory=dict)


def unread(item: Item, reason: str) -> Scored:
    """A video that could not be scored: one record, `read`, with the reason."""
    reason = printable(reason.replace(str(item.path), item.place))
    facts = {"status": "failed", "skipped_reason": reason, "subject": item.name}
    return Scored(item, [Record("read", None, 0, "decode", **facts)])


def score_video(
    item: Item, settings: Settings, *, step: Step = lambda done, total, what: None
) -> Scored:
    """Decode a video once and measure all that is asked for.

    A file that cannot be read gives one record, `read`, with status `failed` and the reason.
    """
    enlarge = item.enlarge
    try:
        info = probe(item.path, fps=settings.fps)
        size = info.height // enlarge, info.width // enlarge
        clip = ClipInfo(info.num_frames, *size, info.fps, info.lossless, info.codec)
        frames = _told(_frames(info, enlarge), info.num_frames, item.name, step)
        scored = score_frames(frames, item, settings, clip=clip)
    except ValueError as error:
        return unread(item, str(error))
    marks = {"variable_rate": True} if info.is_variable_rate else {}
    if info.notes:
        marks["reading"] = "; ".join(info.notes)
    marked = [replace(r, extra=r.extra | marks) for r in scored.records]
    return replace(scored, records=marked)


def score_frames(
    frames: Iterable[np.ndarray], item: Item, settings: Settings, *, clip: ClipInfo
) -> Scored:
    """Measure all that is asked for on frames [C, H, W], which `clip` describes.

    Raises:
        ValueError: if the frames cannot be measured.
    """
    # Who wants the frames: meters all of them, feature nets the first ones.
    stride = settings.stride or item.stride or DEFAULT_STRIDE
    facts = {"stride": stride, "fps": clip.fps, "prompt": item.text}
    meters, absent = meters_for(settings.families, settings, **facts)
    nets: dict[str, FeatureNet] = {}
    problems: dict[str, str] = {}
    for name in settings.nets:
        try:
            nets[name] = cached_net(name, settings)
        except MissingWeightsError as error:
            problems[name] = str(error)
    kept: list[np.ndarray] = []
    longest = max((net.num_frames for net in nets.values()), default=0)

    def watched() -> Iterator[np.ndarray]:
        for frame in frames if meters else islice(frames, longest):
            if len(kept) < longest:
                kept.append(frame)
            yield frame

    # One pass, then the records and the nets' clips.
    measure(watched(), meters)
    records = [record for meter in meters for record in meter.finish()] + absent
    clips = {}
    for name, net in nets.items():
        first = kept[: net.num_frames]
        if len(first) < net.min_frames:
            problems[name] = f"{name} needs {net.min_frames} frames, the video has {len(first)}"
        else:
            clips[name] = net.prepare(np.stack(first))
    records = [replace(r, subject=item.name, clip=clip) for r in records]
    return Scored(item, records, clips, problems, clip)


@lru_cache(maxsize=4)
def cached_net(name: str, settings: Settings) -> FeatureNet:
    """The feature net, loaded once a process."""
    paths, device = settings.paths, settings.device
    return load_net(name, protocol=settings.protocol, paths=paths, device=device)


def _frames(info: VideoInfo, enlarge: int) -> Iterator[np.ndarray]:
    try:
        for frame in iter_frames(info):
            yield native(frame, enlarge, lossless=info.lossless) if enlarge > 1 else frame
    except (OSError, RuntimeError, ArithmeticError, LookupError) as error:
        # Whatever a decoder stumbles over is about this file and stops no other.
        raise ValueError(f"{info.path} cannot be decoded: {error}") from error


def _told(frames: Iterable[np.ndarray], total: int, what: str, step: Step) -> Iterator[np.ndarray]:
    for done, frame in enumerate(frames):
        step(done, total, what=what)
        yield frame
    step(total, total, what=what)


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
