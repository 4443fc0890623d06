"""What a gate can see: detectable changes for n clips, and noise measured from repeats."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from vidcfg import results as on_disk
from vidcfg.metrics.paired import cluster_means
from vidcfg.regress.change import RepeatNoise
from vidcfg.regress.check import check_clips
from vidcfg.regress.clips import ClipSet
from vidcfg.regress.judge import FAIL
from vidcfg.regress.policy import Policy
from vidcfg.stored.read import ResultsError

FEWEST_PAIRS = 3
"""Fewer pairs of renders say nothing about noise."""


def noise_of(base: ClipSet, policy: Policy) -> dict[str, RepeatNoise]:
    """The noise that a baseline knows: saved by calibrate, else between seeds of a prompt.

    Other seeds show other videos, so their spread is the largest that a change which redraws
    every clip, but makes none worse, would show.

    Raises:
        ResultsError: the baseline has neither.
    """
    saved = RepeatNoise.saved(base.facts)
    if found := {name: noise for name, noise in saved.items() if name in policy.metrics}:
        return found
    # Between seeds that follow each other: clips are in the order of cell, prompt and seed.
    neighbours = [(a, b) for a, b in pairwise(base.clips.values()) if a.key[:2] == b.key[:2]]
    for name, rule in policy.metrics.items():
        values = [[clip.value(name) for clip in pair] for pair in neighbours]
        values = np.array([pair for pair in values if None not in pair], dtype=np.float64)
        if len(values) >= FEWEST_PAIRS:
            changes, _ = rule.changes(*values.T)
            found[name] = RepeatNoise.of(changes, "other seeds", len(changes))
    if not found:
        raise ResultsError(
            f"{base.source} has one seed a prompt and no saved noise. Measure it with repeats "
            "(vidcfg regress calibrate A B --save BASELINE), or give --sd 0.07."
        )
    return found


def lost_noise(folder: Path, clips: str) -> str:
    """What a baseline loses when it is recorded anew from `clips`, and what to type; empty where
    it knows no noise of repeats."""
    with suppress(ResultsError):
        if on_disk.read_baseline(folder).plan.get("noise"):
            again = f"vidcfg regress calibrate {clips} REPEAT --save {folder}"
            return f"{folder} loses its noise of repeats, of the videos before. Type: {again}"
    return ""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Noise of every metric over all pairs of repeats, suggested margins, and false alarms."""

    noise: dict[str, RepeatNoise]
    shift: dict[str, float]
    margins: dict[str, float]
    alarms: tuple[str, ...]
    num_pairs: int
    num_prompts: int


def calibrate(sets: Sequence[ClipSet], policy: Policy) -> Calibration:
    """Noise from repeats of the same setting.

    A suggested margin is the policy's own, or half the change that these clips detect if that is
    larger: a margin below the noise only makes a gate inconclusive.

    Raises:
        ResultsError: fewer than two sets, or sets that cannot be compared.
    """
    if len(sets) < 2:
        raise ResultsError("calibrate needs two or more repeats of the same setting.")
    # Every pair of sets is compared, and its changes are kept.
    changes, clusters, alarms = defaultdict(list), defaultdict(list), []
    for base, new in combinations(sets, 2):
        outcome = check_clips(new, base, policy)
        if failed := [r.name for r in outcome.judgement.metrics if r.verdict == FAIL]:
            alarms.append(f"{new.source} against {base.source}: {', '.join(failed)}")
        for name, pairs in outcome.paired.metrics.items():
            _, new_n, base_n, clusters_n = pairs.common
            changes[name].extend(policy.metrics[name].changes(new_n, base_n)[0].tolist())
            clusters[name].extend(clusters_n.tolist())
    # Their spread is the noise; margins follow from what it hides.
    num_prompts = outcome.paired.num_prompts
    noise, shift, margins = {}, {}, {}
    for name, found in changes.items():
        if len(found) < FEWEST_PAIRS:
            continue
        rule = policy.metrics[name]
        # Of k renders of a clip, k - 1 differences do not depend on each other.
        n = round(2 * len(found) / len(sets))
        noise[name] = RepeatNoise.of(found, "repeats", n)
        shift[name] = float(cluster_means(found, clusters[name]).mean())
        level = {"alpha": policy.share(name), "power": policy.power}
        seen = noise[name].detectable(rule, num_prompts, **level)
        margins[name] = max(rule.margin, float(f"{(seen or 0.0) / 2:.2g}"))
    num_pairs = len(sets) * (len(sets) - 1) // 2
    return Calibration(noise, shift, margins, tuple(alarms), num_pairs, num_prompts)
