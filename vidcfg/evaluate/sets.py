"""Records of a whole set: means over videos, and distances to real clips."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidcfg.evaluate.reference import Reference
from vidcfg.metrics.catalogue import measured
from vidcfg.metrics.distribution import Sets, distance_names, distribution_records
from vidcfg.metrics.features.base import FeatureNet
from vidcfg.metrics.record import Record, common_clip, mean_interval, mean_of


def mean_records(records: Sequence[Record]) -> list[Record]:
    """One record a metric: the mean over videos with a 95 % interval.

    `n` counts the videos with a value; `extra` counts the statuses of all. Values of unlike
    protocol or net are never averaged: they become separate records. The order of the videos does
    not matter.
    """
    groups: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        sha256 = record.backend.sha256 if record.backend else None
        # Without a value there may be no backend; such records join those of their name.
        key = (record.name, record.protocol, sha256) if record.value is not None else None
        groups[key or (record.name,)].append(record)
    lost = {key[0]: group for key, group in groups.items() if len(key) == 1}
    made = [_mean(group, lost.get(key[0], [])) for key, group in groups.items() if len(key) == 3]
    named = {record.name for record in made}
    made += [_none(group) for name, group in lost.items() if name not in named]
    return sorted(made, key=lambda r: (r.name, r.protocol))


def _mean(group: list[Record], lost: list[Record]) -> Record:
    values = [record.value for record in group]
    counts = Counter(record.status for record in [*group, *lost])
    coverage = [r.extra["coverage"] for r in group if "coverage" in r.extra]
    extra = dict(sorted(counts.items()))
    if coverage:
        extra["coverage"] = mean_of(coverage)
    return replace(
        group[0],
        value=mean_of(values),
        n=len(values),
        interval=mean_interval(values),
        status="static" if counts["static"] == len(group) else "ok",
        subject="set",
        clip=common_clip([record.clip for record in group if record.clip]),
        trace=None,
        extra=extra,
    )


def _none(group: list[Record]) -> Record:
    reasons = Counter(record.skipped_reason for record in group)
    reason, _ = max(reasons.items(), key=lambda item: (item[1], item[0]))
    counts = Counter(record.status for record in group)
    status = max(counts, key=lambda s: (counts[s], s))
    return replace(
        group[0],
        n=0,
        skipped_reason=reason,
        status=status,
        subject="set",
        clip=None,
        trace=None,
        extra=dict(sorted(counts.items())),
    )


def batches(clips: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Clips stacked in batches of at most `size`, cut where the shape changes."""
    waiting: list[np.ndarray] = []
    for clip in clips:
        if waiting and (len(waiting) == size or clip.shape != waiting[0].shape):
            yield np.stack(waiting)
            waiting = []
        waiting.append(clip)
    if waiting:
        yield np.stack(waiting)


def features_of(net: FeatureNet, clips: Iterable[np.ndarray], *, batch_size: int) -> np.ndarray:
    """Features [N, D] of prepared clips; N = 0 gives an empty array."""
    parts = [net.features(batch) for batch in batches(clips, batch_size)]
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class ReferenceFeatures:
    """The features of real clips by one net, for any number of comparisons."""

    protocol: str
    real: np.ndarray
    other: np.ndarray | None


def reference_features(
    net: FeatureNet, reference: Reference, *, batch_size: int
) -> ReferenceFeatures:
    """Both real sets of a reference through a net."""
    real = features_of(net, reference.real(net), batch_size=batch_size)
    other = None
    if reference.other is not None:
        other = features_of(net, reference.other(net), batch_size=batch_size)
    return ReferenceFeatures(reference.protocol, real, other)


def distance_records(
    net: FeatureNet, generated: np.ndarray, reference: Reference, *, batch_size: int
) -> list[Record]:
    """All distances of the generated features to those of the reference, by this net."""
    return distances(net, generated, reference_features(net, reference, batch_size=batch_size))


def distances(
    net: FeatureNet, generated: np.ndarray, reference: ReferenceFeatures
) -> list[Record]:
    """All distances of the generated features to known ones."""
    real, other = reference.real, reference.other
    few = [
        f"{count} clips of the {side} set can be used, 2 are needed"
        for side, count in (("generated", len(generated)), ("reference", len(real)))
        if count < 2
    ]
    if few:
        return absent_distances(net.name, "; ".join(few), n=len(generated))
    # As many as there are videos, so that the baseline has the same bias.
    other = None if other is None else other[: len(generated)]
    other = other if other is not None and len(other) >= 2 else None
    return distribution_records(
        Sets(generated, real, other),
        net=net.name,
        backend=net.backend,
        protocol=f"{net.protocol};{reference.protocol}",
        is_biased=net.is_biased_covariance,
        is_published=net.is_published,
    )


def absent_distances(net: str, reason: str, *, n: int = 0) -> list[Record]:
    """Null records of all distances by a net, with the reason."""
    names = distance_names(net)
    return [measured(name, None, n=n, reason=reason, status="skipped") for name in names]
