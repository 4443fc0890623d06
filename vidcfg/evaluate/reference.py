"""Real clips to compare with: a folder of videos, or drawn moving shapes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vidcfg.evaluate.inputs import find_items
from vidcfg.media.probe import probe
from vidcfg.media.read import read_frames
from vidcfg.metrics.features.base import FeatureNet

MINI_CLIPS = 512
"""Real clips drawn for `--reference mini`: this many, or as many as there are videos."""

_SEEDS = (7_000_001, 7_000_002)
"""Seeds of the drawn `real` and `other`; no training clip has them as its first seed."""

Clips = Callable[[FeatureNet], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Reference:
    """Where the real clips of a net come from; `protocol` goes into the records.

    `real` and `other` give prepared clips; `other` is None where the real set is split for the
    baseline. `problems` fills with the files that could not be used, and what is odd in others.
    """

    protocol: str
    real: Clips
    other: Clips | None
    problems: list[str]


def open_reference(name: str, *, shapes: Sequence[tuple[int, int, int]]) -> Reference:
    """The reference of that name: `mini`, or a folder (or file) of videos.

    `shapes` are (frames, height, width) of the videos to compare; drawn clips copy them in turn.

    Raises:
        ValueError: the folder holds no videos.
    """
    if name == "mini":
        count = max(MINI_CLIPS, len(shapes))
        drawn = [_drawn(seed, shapes, count) for seed in _SEEDS]
        return Reference(f"reference=moving-shapes,n={count}", *drawn, [])
    items = [item for item in find_items([name]) if item.path.exists()]
    if not items:
        raise ValueError(
            f"the reference {name} holds no videos. Give a folder of videos, or `mini`."
        )
    problems: list[str] = []

    def real(net: FeatureNet) -> Iterator[np.ndarray]:
        # The first frames of each, as many as the net takes; nothing else is decoded.
        for item in items:
            try:
                info = probe(item.path)
                problems.extend(f"{item.name}: {note}" for note in info.notes)
                if info.num_frames < net.min_frames:
                    has = f"{item.path} has {info.num_frames} frames"
                    raise ValueError(f"{has}, {net.name} needs {net.min_frames}.")
                yield net.prepare(read_frames(info, range(min(info.num_frames, net.num_frames))))
            except ValueError as error:
                problems.append(f"{item.name}: {error}")

    return Reference("reference=folder", real, None, problems)


def _drawn(seed: int, shapes: Sequence[tuple[int, int, int]], count: int) -> Clips:
    from vidcfg.mini.shapes import sample_clip

    def clips(net: FeatureNet) -> Iterator[np.ndarray]:
        for index in range(count):
            num_frames, height, width = shapes[index % len(shapes)]
            clip = sample_clip((seed, index), num_frames=num_frames, height=height, width=width)
            yield net.prepare(clip.frames.transpose(0, 3, 1, 2)[: net.num_frames])

    return clips
