"""Records of a whole set: means over videos, and distances to real clips."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vidcfg.evaluate.reference import Reference
from vidcfg.metrics.catalogue import measured
from vidcfg.metrics.distances import Moments
from vidcfg.metrics.distribution import Sets, distance_names, distribution_records
from vidcfg.metrics.features.base import FeatureNet
from vidcfg.metrics.record import Record, common_clip, mean_interval, mean_of, range_of
from vidcfg.report.compare import FLOORS, interval_of


def mean_records(
    records: Sequence[Record], prompts: Mapping[str, str | None] | None = None
) -> list[Record]:
    """One record a metric: the mean over videos with a 95 % interval inside the metric's range.

    `prompts` holds the prompt by video; videos of one prompt are one cluster of the interval, a
    video whose prompt is not known is its own.

    `n` counts the videos with a value; `extra` counts the statuses of all. Values of unlike
    protocol or net are never averaged: they become separate records. The order of the videos does
    not matter.
    """
    with_value: dict[tuple, list[Record]] = defaultdict(list)
    without: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        sha256 = record.backend.sha256 if record.backend else None
        if record.value is not None:
            with_value[record.name, record.protocol, sha256].append(record)
        else:
            # There may be no backend; such records join those of their name.
            without[record.name].append(record)
    made = [
        _mean(group, without.get(key[0], []), prompts or {}) for key, group in with_value.items()
    ]
    named = {record.name for record in made}
    made += [_mean([], lost, {}) for name, lost in without.items() if name not in named]
    return sorted(made, key=lambda r: (r.name, r.protocol))


def _mean(group: list[Record], lost: list[Record], prompts: Mapping[str, str | None]) -> Record:
    """The mean of those with a value; without any, why most of the lost have none."""
    counts = Counter(record.status for record in [*group, *lost])
    extra = dict(sorted(counts.items()))
    of_set = {"subject": "set", "trace": None, "extra": extra}
    if not group:
        reasons = Counter(record.skipped_reason for record in lost)
        reason, status = (max(c, key=lambda key: (c[key], key)) for c in (reasons, counts))
        of_set |= {"n": 0, "skipped_reason": reason, "status": status, "clip": None}
        return replace(lost[0], **of_set)
    values = [record.value for record in group]
    # A number cannot be a prompt: it marks a video whose prompt is not known.
    known = [prompts.get(record.subject) or i for i, record in enumerate(group)]
    coverage = [r.extra["coverage"] for r in group if "coverage" in r.extra]
    if coverage:
        extra["coverage"] = mean_of(coverage)
    return replace(
        group[0],
        value=mean_of(values),
        n=len(values),
        interval=_interval(values, known, group[0].unit),
        status="static" if counts["static"] == len(group) else "ok",
        clip=common_clip([record.clip for record in group if record.clip]),
        **of_set,
    )


def _interval(
    values: Sequence[float], prompts: Sequence[str | int], unit: str
) -> tuple[float, float] | None:
    """Student's of the mean, in a unit that reads as ratios as wide as the report's of prompts."""
    low, high = range_of(unit)
    ends = mean_interval(values, prompts=prompts, low=low, high=high)
    if ends is None or unit not in FLOORS:
        return ends
    by_prompt = defaultdict(list)
    for prompt, value in zip(prompts, values):
        by_prompt[prompt].append(value)
    wide = interval_of(np.sort([mean_of(group) for group in by_prompt.values()]), unit)
    return min(ends[0], wide[0]), max(ends[1], wide[1])


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

    @cached_property
    def moments(self) -> Moments:
        return Moments(self.real)


def reference_features(
    net: FeatureNet, reference: Reference, *, batch_size: int
) -> ReferenceFeatures:
    """Both real sets of a reference through a net."""
    real, other = (
        clips and features_of(net, clips(net), batch_size=batch_size)
        for clips in (reference.real, reference.other)
    )
    return ReferenceFeatures(reference.protocol, real, other)


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
        Sets(generated, real, other, reference.moments),
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
