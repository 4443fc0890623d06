"""Means over the videos of a set, as records."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vidcfg.metrics.catalogue import measured
from vidcfg.metrics.record import Record, common_clip, mean_interval, mean_of, range_of
from vidcfg.mini.shapes import ATTRIBUTES
from vidcfg.report.compare import FLOORS, interval_of


def set_means(
    records: Sequence[Record], prompts: Mapping[str, str | None] | None = None
) -> list[Record]:
    """One record a metric: the mean over videos with a 95 % interval inside the metric's range.

    `prompts` holds the prompt by video; videos of one prompt are one cluster of the interval, a
    video whose prompt is not known is its own.

    `n` counts the videos with a value; `extra` counts the statuses of all. Values of unlike
    protocol or net are never averaged: they become separate records. The order of the videos does
    not matter. The accuracy of each attribute comes last.
    """
    with_value: dict[tuple, list[Record]] = defaultdict(list)
    without: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.name == "read":
            continue
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
    return sorted(made, key=lambda r: (r.name, r.protocol)) + _accuracies(records)


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
    if coverage := [r.extra["coverage"] for r in group if "coverage" in r.extra]:
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
    low, high = range_of(unit, values)
    ends = mean_interval(values, prompts=prompts, low=low, high=high)
    if ends is None or unit not in FLOORS:
        return ends
    by_prompt = defaultdict(list)
    for prompt, value in zip(prompts, values):
        by_prompt[prompt].append(value)
    wide = interval_of(np.sort([mean_of(group) for group in by_prompt.values()]), unit)
    return min(ends[0], wide[0]), max(ends[1], wide[1])


def _accuracies(records: Sequence[Record]) -> list[Record]:
    """Accuracy per attribute over the set, from the videos' own right and wrong ones."""
    judged = [r for r in records if r.name == "attribute_accuracy[mini]" and r.value is not None]
    made = []
    for name in sorted({key for r in judged for key in r.extra} & set(ATTRIBUTES)):
        right = [r.extra[name] for r in judged if name in r.extra]
        first = {"protocol": judged[0].protocol, "backend": judged[0].backend}
        value = float(np.mean(right))
        made.append(measured(f"accuracy[mini:{name}]", value, n=len(right), **first))
    return made
