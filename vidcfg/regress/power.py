"""What a gate can see: detectable changes for n clips, and noise measured from repeats."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from vidcfg.metrics.paired import cluster_means, minimum_detectable_effect
from vidcfg.regress.check import check_clips
from vidcfg.regress.clips import Clip, ClipSet, RegressError
from vidcfg.regress.estimate import changes, margin_of
from vidcfg.regress.policy import MetricRule, Policy


@dataclass(frozen=True)
class Noise:
    """Standard deviation of a metric's change between two renders of one clip, without cause.

    On the scale of the rule (log ratio, or difference), over `n` pairs. `source` says from what.
    """

    sd: float
    n: int
    source: str


def noise_of(base: ClipSet, policy: Policy) -> dict[str, Noise]:
    """The noise that a baseline knows: saved by calibrate, else between seeds of a prompt.

    Other seeds show other videos, so their spread is the largest that a change which redraws
    every clip, but makes none worse, would show.

    Raises:
        RegressError: the baseline has neither.
    """
    saved = base.facts.get("noise") or {}
    found = {
        name: Noise(float(entry["sd"]), int(entry["n"]), "repeats")
        for name, entry in saved.items()
        if name in policy.metrics
    }
    if found:
        return found
    groups: dict[tuple[str, str], list[Clip]] = {}
    for key, clip in base.clips.items():
        groups.setdefault((key.cell, key.prompt), []).append(clip)
    pairs = [pair for clips in groups.values() for pair in zip(clips, clips[1:])]
    for name, rule in policy.metrics.items():
        spread = _spread(name, rule, pairs)
        if spread is not None:
            found[name] = Noise(*spread, "other seeds")
    if not found:
        raise RegressError(
            f"{base.source} has one seed a prompt and no saved noise. Measure it with repeats "
            "(vidcfg regress calibrate A B --save BASELINE), or give --sd 0.07."
        )
    return found


def _spread(name: str, rule: MetricRule, pairs: Sequence) -> tuple[float, int] | None:
    values = []
    for one, other in pairs:
        a, b = (clip.records.get(name) for clip in (one, other))
        if a is not None and b is not None and a.value is not None and b.value is not None:
            values.append(changes(rule, np.array([a.value]), np.array([b.value]))[0][0])
    if len(values) < 3:
        return None
    # Without a cause the mean change is 0.
    return math.sqrt(float(np.mean(np.square(values)))), len(values)


def detectable_table(
    noise: Mapping[str, Noise], policy: Policy, counts: Sequence[int]
) -> list[dict[str, Any]]:
    """A row a metric: the change found with the policy's power by n clips of as many prompts.

    At the metric's own share of alpha; never below its margin.
    """
    rows = []
    for name, rule in policy.metrics.items():
        if name not in noise:
            continue
        share = policy.share(name)
        direction = -1 if rule.bad == "down" else 1
        row = {"metric": name, "sd": noise[name].sd, "source": noise[name].source}
        for count in counts:
            row[count] = _detectable(noise[name].sd, rule, direction, share, policy.power, count)
        rows.append(row)
    return rows


def _detectable(sd, rule: MetricRule, direction: int, alpha: float, power: float, count: int):
    """None where so few prompts cannot reach alpha."""
    if 0.5**count > alpha:
        return None
    # Two values with this standard deviation stand for the noise.
    values = np.array([-sd, sd]) / math.sqrt(2)
    found = minimum_detectable_effect(
        values, range(2), num_clusters=count, alpha=alpha, power=power
    )
    found = max(found, margin_of(rule, direction))
    return abs(math.expm1(direction * found)) if rule.scale == "ratio" else found


@dataclass(frozen=True, eq=False)
class Calibration:
    """Noise of every metric over all pairs of repeats, suggested margins, and false alarms."""

    noise: dict[str, Noise]
    shift: dict[str, float]
    margins: dict[str, float]
    alarms: tuple[str, ...]
    num_pairs: int
    prompts: int


def calibrate(sets: Sequence[ClipSet], policy: Policy) -> Calibration:
    """Noise from repeats of the same setting.

    A suggested margin is the policy's own, or half the change that these clips detect if that is
    larger: a margin below the noise only makes a gate inconclusive.

    Raises:
        RegressError: fewer than two sets, or sets that cannot be compared.
    """
    if len(sets) < 2:
        raise RegressError("calibrate needs two or more repeats of the same setting.")
    changes_of: dict[str, list[np.ndarray]] = {}
    clusters_of: dict[str, list[str]] = {}
    alarms, outcome = [], None
    for base, new in combinations(sets, 2):
        outcome = check_clips(new, base, policy)
        if outcome.verdict == "FAIL":
            named = [r.name for r in outcome.judgement.metrics if r.verdict == "FAIL"]
            alarms.append(f"{new.source} against {base.source}: {', '.join(named)}")
        for name, pairs in outcome.paired.metrics.items():
            both = np.isfinite(pairs.new_N) & np.isfinite(pairs.base_N)
            change, _ = changes(policy.metrics[name], pairs.new_N[both], pairs.base_N[both])
            changes_of.setdefault(name, []).append(change)
            clusters_of.setdefault(name, []).extend(np.array(pairs.clusters_N)[both].tolist())
    noise, shift, margins = {}, {}, {}
    prompts = len({key.prompt for key in outcome.paired.keys})
    for name, found in changes_of.items():
        every, rule = np.concatenate(found), policy.metrics[name]
        if len(every) < 3:
            continue
        sd = math.sqrt(float(np.mean(np.square(every))))
        noise[name] = Noise(sd, len(every), "repeats")
        shift[name] = float(cluster_means(every, clusters_of[name]).mean())
        direction = -1 if rule.bad == "down" else 1
        seen = _detectable(sd, rule, direction, policy.share(name), policy.power, prompts)
        margins[name] = max(rule.margin, float(f"{(seen or 0.0) / 2:.2g}"))
    num_pairs = len(sets) * (len(sets) - 1) // 2
    return Calibration(noise, shift, margins, tuple(alarms), num_pairs, prompts)
