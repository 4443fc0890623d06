"""Distances of a set to real clips: a folder of videos, or drawn moving shapes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice

import numpy as np

from vidcfg.evaluate.inputs import Item, real_items
from vidcfg.evaluate.score import cached_net, native
from vidcfg.evaluate.settings import Settings
from vidcfg.media.probe import probe
from vidcfg.media.read import first_frames
from vidcfg.metrics.catalogue import measured
from vidcfg.metrics.distances import Moments
from vidcfg.metrics.distribution import Sets, distance_names, distribution_records
from vidcfg.metrics.features.base import FeatureNet
from vidcfg.metrics.metric import skipped
from vidcfg.metrics.record import Record
from vidcfg.metrics.weight_files import MissingWeightsError

MINI_CLIPS = 512
"""Real clips drawn for `--reference mini`: this many, or as many as there are videos."""

_SEEDS = (7_000_001, 7_000_002)
"""Seeds of the drawn `real` and `other`; no training clip has them as its first seed."""

Shape = tuple[int, int, int]
"""(frames, height, width) of a video."""


@dataclass(frozen=True, eq=False)
class RealFeatures:
    """The features [M, D] of real clips by one net, for any number of comparisons.

    `other` are those of a second set, None where the real set is split for the baseline.
    `problems` tells which files could not be used, and what is odd in others; `protocol` goes
    into the records.
    """

    protocol: str
    real: np.ndarray
    other: np.ndarray | None
    problems: list[str]

    @cached_property
    def moments(self) -> Moments:
        return Moments(self.real)


def real_features(name: str, net: FeatureNet, *, shapes: Sequence[Shape]) -> RealFeatures:
    """The features of a reference: `mini`, one drawn clip of each of `shapes`, or a folder (or
    file) of videos.

    Raises:
        ValueError: there is no folder, or it holds no videos.
    """
    if name == "mini":
        both = (features_of(net, _drawn(net, seed, shapes)) for seed in _SEEDS)
        return RealFeatures(f"reference=moving-shapes,n={len(shapes)}", *both, [])
    problems: list[str] = []
    real = features_of(net, _first_frames(net, real_items(name), problems))
    if copies := len(real) - len(np.unique(real, axis=0)):
        text = f"{copies} of {len(real)} clips are copies of others, which makes distances, and "
        problems.append(f"{text}those between real clips, too small or too large. Leave them out.")
    return RealFeatures("reference=folder", real, None, problems)


def _first_frames(net: FeatureNet, items: list[Item], problems: list[str]) -> Iterator[np.ndarray]:
    """The first frames of each, as many as the net takes; nothing else is decoded."""
    for item in items:
        try:
            info = probe(item.path)
            problems.extend(f"{item.name}: {note}" for note in info.notes)
            if info.num_frames < net.min_frames:
                has = f"{item.path} has {info.num_frames} frames"
                raise ValueError(f"{has}, {net.name} needs {net.min_frames}.")
            frames = first_frames(info, net.num_frames)
            if item.enlarge > 1:
                own = [native(frame, item.enlarge, lossless=info.lossless) for frame in frames]
                frames = np.stack(own)
            yield net.prepare(frames)
        except ValueError as error:
            problems.append(f"{item.name}: {error}")


def _drawn(net: FeatureNet, seed: int, shapes: Sequence[Shape]) -> Iterator[np.ndarray]:
    from vidcfg.mini.shapes import sample_clip

    for index, (num_frames, height, width) in enumerate(shapes):
        clip = sample_clip((seed, index), num_frames=num_frames, height=height, width=width)
        yield net.prepare(clip.frames.transpose(0, 3, 1, 2)[: net.num_frames])


def features_of(net: FeatureNet, clips: Iterable[np.ndarray]) -> np.ndarray:
    """Features [N, D] of prepared clips; N = 0 gives an empty array."""
    parts = [net.features(clip[None]) for clip in clips]
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)


class Distances:
    """Distances of sets to the reference of `settings`, whose own features are made once.

    `no_reference` and `no_features` are the reasons of records where there is none of either.
    `warnings` fills with what is odd in the reference, and what videos lack.
    """

    def __init__(self, settings: Settings, *, no_reference: str, no_features: str):
        self.settings, self.warnings = settings, list[str]()
        self._no_reference, self._no_features = no_reference, no_features
        self._known: dict[tuple, RealFeatures] = {}

    def of(
        self,
        features: Mapping[str, Mapping[str, np.ndarray]],
        shapes: Mapping[str, Shape],
        problems: Mapping[str, str],
    ) -> list[Record]:
        """The records of one set, from the vectors [D] of its videos by net and name.

        `shapes` are those of its videos by name, `problems` says of a net why videos have no
        vector.
        """
        made = []
        for name in self.settings.nets:
            vectors, reason = features.get(name, {}), problems.get(name)
            if self.settings.reference is None:
                made += absent_distances(name, self._no_reference) if name != "mini" else []
            elif reason and not vectors:
                made += absent_distances(name, reason)
            else:
                try:
                    net = cached_net(name, self.settings)
                except MissingWeightsError as error:
                    made += absent_distances(name, str(error))
                    continue
                if not vectors:
                    made += absent_distances(name, self._no_features)
                    continue
                names = sorted(vectors)
                generated = np.stack([vectors[key] for key in names])
                reference = self._reference(net, [shapes[key] for key in names])
                made += distances(net, generated, reference)
                if lost := len(shapes) - len(names):
                    text = f"{lost} of {len(shapes)} videos are in no distance by {name}"
                    self.warnings.append(f"{text}: {reason}" if reason else text)
        return made

    def _reference(self, net: FeatureNet, shapes: Sequence[Shape]) -> RealFeatures:
        # Drawn clips copy the shapes of what they are compared with in turn.
        name, count = self.settings.reference, max(MINI_CLIPS, len(shapes))
        drawn = tuple(islice(cycle(shapes), count)) if name == "mini" else ()
        known = (net.name, drawn)
        if known not in self._known:
            self._known[known] = real_features(name, net, shapes=drawn)
            self.warnings += [f"reference: {text}" for text in self._known[known].problems]
        return self._known[known]


def distances(net: FeatureNet, generated: np.ndarray, reference: RealFeatures) -> list[Record]:
    """All distances of the generated features [N, D] to known ones."""
    real, other = reference.real, reference.other
    few = [
        f"{count} clips of the {side} set can be used, 2 are needed"
        for side, count in (("generated", len(generated)), ("reference", len(real)))
        if count < 2
    ]
    if few:
        return absent_distances(net.name, "; ".join(few), n=len(generated))
    # As many as there are videos, so that the baseline has the same bias.
    other = None if other is None or len(other) < 2 else other[: len(generated)]
    sets = Sets(generated, real, other, reference.moments)
    return distribution_records(sets, net, protocol=reference.protocol)


def absent_distances(net: str, reason: str, *, n: int = 0) -> list[Record]:
    """Null records of all distances by a net, with the reason."""
    return [measured(name, **skipped(reason, n=n)) for name in distance_names(net)]
