"""Real clips to compare with: a folder of videos, or drawn moving shapes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vidcfg.evaluate.inputs import Item, find_items
from vidcfg.media.probe import VideoInfo, probe
from vidcfg.media.read import read_frames
from vidcfg.media.video import MediaError
from vidcfg.metrics.features.base import FeatureNet

MINI = "mini"
MINI_CLIPS = 512
"""Real clips drawn for `--reference mini`: this many, or as many as there are videos."""

_SEEDS = {"real": 7_000_001, "other": 7_000_002}
"""Seeds of drawn clips; no training clip has them as its first seed."""


@dataclass(frozen=True)
class Reference:
    """Where the real clips of a net come from; `protocol` goes into the records.

    `real` and `other` give prepared clips; `other` is None where the real set is split for the
    baseline. `problems` fills with the files that could not be used.
    """

    protocol: str
    real: Callable[[FeatureNet], Iterator[np.ndarray]]
    other: Callable[[FeatureNet], Iterator[np.ndarray]] | None
    problems: list[str]


def open_reference(name: str, *, shapes: Sequence[tuple[int, int, int]]) -> Reference:
    """The reference of that name: `mini`, or a folder (or file) of videos.

    `shapes` are (frames, height, width) of the videos to compare; drawn clips copy them in turn.

    Raises:
        ValueError: the folder holds no videos.
    """
    if name == MINI:
        return _drawn(shapes)
    items = [item for item in find_items([name]) if item.path.exists()]
    if not items:
        raise ValueError(
            f"the reference {name} holds no videos. Give a folder of videos, or `mini`."
        )
    problems: list[str] = []

    def real(net: FeatureNet) -> Iterator[np.ndarray]:
        for item in items:
            try:
                yield net.prepare(read_clip(item, net))
            except (MediaError, ValueError) as error:
                problems.append(f"{item.name}: {error}")

    return Reference("reference=folder", real, None, problems)


def read_clip(item: Item, net: FeatureNet) -> np.ndarray:
    """The first frames of a video, as many as the net takes; nothing else is decoded.

    Raises:
        MediaError: the file cannot be read or is too short.
    """
    info: VideoInfo = probe(item.path)
    if info.num_frames < net.min_frames:
        raise MediaError(
            f"{item.path} has {info.num_frames} frames, {net.name} needs {net.min_frames}."
        )
    return read_frames(info, range(min(info.num_frames, net.num_frames)))


def _drawn(shapes: Sequence[tuple[int, int, int]]) -> Reference:
    from vidcfg.mini.shapes import sample_clip

    count = max(MINI_CLIPS, len(shapes))

    def draw(seed: int) -> Callable[[FeatureNet], Iterator[np.ndarray]]:
        def clips(net: FeatureNet) -> Iterator[np.ndarray]:
            for index in range(count):
                num_frames, height, width = shapes[index % len(shapes)]
                size = {"num_frames": num_frames, "height": height, "width": width}
                clip = sample_clip((seed, index), **size)
                yield net.prepare(clip.frames.transpose(0, 3, 1, 2)[: net.num_frames])

        return clips

    protocol = f"reference=moving-shapes,n={count}"
    return Reference(protocol, draw(_SEEDS["real"]), draw(_SEEDS["other"]), [])
