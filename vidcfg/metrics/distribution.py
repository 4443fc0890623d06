"""Distances between a set of generated clips and a set of real ones, as records."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from vidcfg.metrics.distances import (
    Estimated,
    Moments,
    frechet,
    frechet_infinity,
    kernel_distance,
    mind,
    prdc,
    sorted_rows,
)
from vidcfg.metrics.features.base import FeatureNet
from vidcfg.metrics.metric import METRICS, declare, measured, skipped
from vidcfg.metrics.record import Record

LITERATURE_N = 2048
"""Clips on each side below which a Frechet distance is not comparable with published ones."""

RELIABLE_PRDC = 500
"""Clips on a side below which precision and recall are mostly noise."""


@dataclass(frozen=True, eq=False)
class Sets:
    """Features of generated and real clips, and a second set of real ones for the baseline.

    The baseline is the same distance between real clips and other real clips; without `other` the
    real set is split in two. `kept` are the moments of `real` where other sets use them as well.
    """

    generated: Float[np.ndarray, "N D"]
    real: Float[np.ndarray, "M D"]
    other: Float[np.ndarray, "L D"] | None = None
    kept: Moments | None = None

    def baseline(self) -> tuple[np.ndarray, np.ndarray]:
        if self.other is not None:
            return self.other, self.real
        rows = sorted_rows(self.real)
        return rows[::2], rows[1::2]


@dataclass(frozen=True)
class Distance:
    """Metrics that are made together: `of(real, generated, is_biased)` gives their values.

    With `takes_moments` the real clips come as `Moments`.
    """

    names: tuple[str, ...]
    of: Callable[[Any, np.ndarray, bool], list[Estimated]]
    has_baseline: bool = True
    takes_moments: bool = False


DISTANCES: list[Distance] = []
"""In the order of their records."""


def distance(units: dict[str, str], better: str, protocol: str, of: Callable, **how: bool) -> None:
    """Register metrics of two sets of features by their names and units; `how` as `Distance`."""
    for name, unit in units.items():
        declare(name, "distribution", unit, better, protocol)
    DISTANCES.append(Distance(tuple(units), of, **how))


distance(
    *({"fd": "feature^2"}, "lower", "frechet"),
    lambda x, y, is_biased: [Estimated(frechet(y, x, is_biased=is_biased))],
    takes_moments=True,
)
distance(
    *({"fd_infinity": "feature^2"}, "lower", "frechet;line-in-1/n"),
    lambda x, y, _: [frechet_infinity(y, x)],
    has_baseline=False,
)
for _name, _on_i3d in (("fd", "fvd"), ("fd_infinity", "fvd_infinity")):
    METRICS[_on_i3d] = replace(METRICS[_name], name=_on_i3d)
distance(
    *({"kd": "mmd^2"}, "lower", "poly3,gamma=1/d,offset=1;unbiased"),
    lambda x, y, _: [kernel_distance(y, x)],
)
distance(
    *({"mind": "feature^2"}, "lower", "sliced;directions=2000;seed=0"),
    lambda x, y, _: [Estimated(mind(x, y))],
)
distance(
    {"precision": "0..1", "recall": "0..1", "density": "ratio", "coverage": "0..1"},
    *("higher", "k=5;ties=strict"),
    lambda x, y, _: [*map(Estimated, prdc(x, y))],
)


def distance_name(name: str, net: str) -> str:
    """The name of a record of that distance by a net; only I3D's `fd` is called `fvd`."""
    if name.startswith("fd") and net.startswith("i3d"):
        name = name.replace("fd", "fvd")
    return f"{name}[{net}]"


def distance_names(net: str) -> list[str]:
    """The names of all records of distances by a net."""
    return [distance_name(name, net) for distance in DISTANCES for name in distance.names]


def distribution_records(sets: Sets, net: FeatureNet, *, protocol: str) -> list[Record]:
    """Frechet distance and its extrapolation, kernel and sliced distance, precision and the rest.

    `net` made the features, `protocol` is that of the reference. Each record's `extra` has the
    number of real clips, the real-against-real value with its own numbers, and what there is to
    warn about. What a set is too small for is skipped with the reason.
    """
    made, other_and_real = [], sets.baseline()
    smaller, is_biased = min(len(sets.generated), len(sets.real)), net.is_biased_covariance
    for distance in DISTANCES:
        facts = {"n": len(sets.generated), "backend": net.backend}
        facts["protocol"] = f"{net.protocol};{protocol}"
        if METRICS[distance.names[0]].protocol.startswith("frechet"):
            facts["protocol"] += ";cov=biased" if is_biased else ";cov=unbiased"
        # What the values are, and what they would be between real clips.
        real = sets.kept if distance.takes_moments and sets.kept else sets.real
        try:
            found = distance.of(real, sets.generated, is_biased)
        except ValueError as error:
            facts |= skipped(str(error), n=len(sets.generated))
            made += [measured(distance_name(name, net.name), **facts) for name in distance.names]
            continue
        baseline = None
        with suppress(ValueError):
            if distance.has_baseline:
                other, whole = other_and_real
                baseline = distance.of(real if whole is sets.real else whole, other, is_biased)
        # One record each.
        facts["comparable_to_literature"] = net.is_published and smaller >= LITERATURE_N
        for index, (name, (value, error)) in enumerate(zip(distance.names, found)):
            extra = {"n_real": len(sets.real)}
            interval = None if error is None else (value - 1.96 * error, value + 1.96 * error)
            if baseline is not None:
                extra["real_against_real"] = baseline[index].value
                extra["real_against_real_n"] = [len(x) for x in other_and_real]
            if note := _note(name, smaller):
                extra["note"] = note
            rest = {"interval": interval, "extra": extra, **facts}
            made.append(measured(distance_name(name, net.name), value, **rest))
    return made


def _note(name: str, num_clips: int) -> str:
    """What to know of a distance between sets of which the smaller has so many clips."""
    notes = []
    if num_clips < LITERATURE_N:
        notes.append(
            f"{num_clips} clips; {LITERATURE_N} on each side are needed to compare with literature"
        )
    if name == "fd":
        notes.append("biased upwards at this size, as real against real is")
    if name in ("precision", "recall") and num_clips < RELIABLE_PRDC:
        notes.append(f"below {RELIABLE_PRDC} clips this is mostly noise")
    return "; ".join(notes)
