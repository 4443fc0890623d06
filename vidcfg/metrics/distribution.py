"""Distances between a set of generated clips and a set of real ones, as records."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from vidcfg.metrics.catalogue import measured
from vidcfg.metrics.frechet import LITERATURE_N, frechet, frechet_infinity
from vidcfg.metrics.kernel import kernel_distance, mind
from vidcfg.metrics.prdc import prdc
from vidcfg.metrics.record import Backend, Record

RELIABLE_PRDC = 500
"""Clips on a side below which precision and recall are mostly noise."""


@dataclass(frozen=True, eq=False)
class Sets:
    """Features of generated and real clips, and a second set of real ones for the baseline.

    The baseline is the same distance between real clips and other real clips; without `other` the
    real set is split in two.
    """

    generated: Float[np.ndarray, "N D"]
    real: Float[np.ndarray, "M D"]
    other: Float[np.ndarray, "L D"] | None = None

    def baseline(self) -> tuple[np.ndarray, np.ndarray]:
        if self.other is not None:
            return self.other, self.real
        rows = self.real[np.lexsort(self.real.T[::-1])]
        return rows[::2], rows[1::2]


def distribution_records(
    sets: Sets,
    *,
    net: str,
    backend: Backend,
    protocol: str,
    is_biased: bool = False,
    is_published: bool = False,
) -> list[Record]:
    """Frechet distance and its extrapolation, kernel and sliced distance, precision and the rest.

    Each record's `extra` has the number of real clips, the real-against-real value with its own
    numbers, and what there is to warn about. What a set is too small for is skipped with the
    reason.
    """
    rest = {"backend": backend, "protocol": protocol}
    made = [
        *_frechet_records(sets, net, is_biased=is_biased, rest=rest),
        _kernel_record(sets, net, rest),
        _plain(f"mind[{net}]", sets, mind, rest),
        *_prdc_records(sets, net, rest),
    ]
    enough = min(len(sets.generated), len(sets.real)) >= LITERATURE_N
    return [_with_note(r, sets, is_comparable=is_published and enough) for r in made]


def _frechet_records(sets: Sets, net: str, *, is_biased: bool, rest: dict) -> list[Record]:
    name = "fvd" if net.startswith("i3d") else "fd"
    covariance = "cov=biased" if is_biased else "cov=unbiased"
    rest = rest | {"protocol": f"{rest['protocol']};{covariance}"}
    first = _plain(f"{name}[{net}]", sets, lambda y, x: frechet(x, y, is_biased=is_biased), rest)
    at_infinity = f"{name}_infinity[{net}]"
    try:
        found = frechet_infinity(sets.generated, sets.real)
    except ValueError as error:
        return [first, _skipped(at_infinity, sets, error, rest)]
    half = 1.96 * found.standard_error
    second = measured(
        at_infinity,
        found.value,
        n=len(sets.generated),
        interval=(found.value - half, found.value + half),
        extra={"n_real": len(sets.real)},
        **rest,
    )
    return [first, second]


def _kernel_record(sets: Sets, net: str, rest: dict) -> Record:
    record = _plain(f"kd[{net}]", sets, lambda y, x: kernel_distance(x, y).value, rest)
    if record.value is None:
        return record
    error = kernel_distance(sets.generated, sets.real).standard_error
    if error is None:
        return record
    return replace(record, interval=(record.value - 1.96 * error, record.value + 1.96 * error))


def _prdc_records(sets: Sets, net: str, rest: dict) -> list[Record]:
    names = ("precision", "recall", "density", "coverage")
    try:
        found, baseline = prdc(sets.real, sets.generated), _baseline_prdc(sets)
    except ValueError as error:
        return [_skipped(f"{name}[{net}]", sets, error, rest) for name in names]
    records = []
    for name in names:
        extra = {"n_real": len(sets.real)}
        if baseline is not None:
            extra |= _baseline_extra(sets, getattr(baseline, name))
        value, n = getattr(found, name), len(sets.generated)
        records.append(measured(f"{name}[{net}]", value, n=n, extra=extra, **rest))
    return records


def _baseline_prdc(sets: Sets):
    other, real = sets.baseline()
    try:
        return prdc(real, other)
    except ValueError:
        return None


def _plain(name: str, sets: Sets, distance, rest: dict) -> Record:
    """A record of `distance(real, generated)` with its baseline, or skipped with the reason."""
    try:
        value = distance(sets.real, sets.generated)
    except ValueError as error:
        return _skipped(name, sets, error, rest)
    extra = {"n_real": len(sets.real)}
    other, real = sets.baseline()
    if min(len(other), len(real)) >= 2:
        extra |= _baseline_extra(sets, distance(real, other))
    return measured(name, value, n=len(sets.generated), extra=extra, **rest)


def _baseline_extra(sets: Sets, value: float) -> dict:
    other, real = sets.baseline()
    return {"real_against_real": value, "real_against_real_n": [len(other), len(real)]}


def _skipped(name: str, sets: Sets, error: ValueError, rest: dict) -> Record:
    return measured(name, None, n=len(sets.generated), reason=str(error), status="skipped", **rest)


def _with_note(record: Record, sets: Sets, *, is_comparable: bool) -> Record:
    if record.value is None:
        return record
    notes, smaller = [], min(len(sets.generated), len(sets.real))
    if smaller < LITERATURE_N:
        notes.append(
            f"{smaller} clips; {LITERATURE_N} on each side are needed to compare with literature"
        )
    if record.name.startswith(("fd[", "fvd[")):
        notes.append("biased upwards at this size, as real against real is")
    if record.name.startswith(("precision", "recall")) and smaller < RELIABLE_PRDC:
        notes.append(f"below {RELIABLE_PRDC} clips this is mostly noise")
    extra = record.extra | ({"note": "; ".join(notes)} if notes else {})
    return replace(record, extra=extra, comparable_to_literature=is_comparable)
