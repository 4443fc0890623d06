"""One measured value with everything needed to know what it may be compared with.

Reads and writes plain dictionaries; imports neither torch nor a video library.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, Literal

LARGEST = 1e15
"""No number of ours is larger, but for seeds."""

SCHEMA = 1
"""Of rows on disk. A row that says another is refused, one that says none is of this one."""

STATUSES = ("ok", "static", "invalid", "skipped", "failed")
"""ok: a number. static: a number, but nothing moves in the clip. invalid: measured, but the
measurement cannot be trusted. skipped: something was missing. failed: the input is broken."""


@dataclass(frozen=True)
class Backend:
    """The net or library behind a value. `sha256` identifies its weights (None: it has none)."""

    name: str
    sha256: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class ClipInfo:
    """The video, or what all videos of a set have in common (None where they differ)."""

    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    fps: float | None = None
    lossless: bool | None = None
    codec: str | None = None

    def __post_init__(self) -> None:
        for name in ("num_frames", "height", "width", "fps"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, it has to be 0 or more.")

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "ClipInfo":
        """What a row says of it; keys that are no field are left out."""
        known = {f.name: row[f.name] for f in fields(cls) if f.name in row}
        fps = known.get("fps")
        return cls(**known | {"fps": None if fps is None else float(fps)})


@dataclass(frozen=True, slots=True)
class Record:
    """A value, or null with the reason.

    `n` counts what the value is taken over (pairs of frames, clips, ...). `interval` is a 95 %
    confidence interval. `better` is `lower`, `higher` or `none`. `trace` holds the value per
    frame, or per pair (entry t is frames t and t + 1), null where it is undefined. `extra` holds
    further figures that belong to the value, such as the coverage of a motion-compensated one.

    Raises:
        ValueError: at construction, if a value and a reason are both given or both missing, a
            number is NaN, infinite or above LARGEST, or the interval is not in order.
    """

    name: str
    value: float | None
    n: int
    protocol: str
    unit: str = ""
    better: Literal["lower", "higher", "none"] = "none"
    backend: Backend | None = None
    interval: tuple[float, float] | None = None
    comparable_to_literature: bool = False
    skipped_reason: str | None = None
    status: str = "ok"
    subject: str = "set"
    clip: ClipInfo | None = None
    trace: tuple[float | None, ...] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"{self.name}: n is {self.n}, it has to be 0 or more.")
        if self.status not in STATUSES:
            raise ValueError(f"status is {self.status!r}, allowed are {', '.join(STATUSES)}.")
        is_null = self.value is None
        if is_null != bool(self.skipped_reason):
            raise ValueError(f"{self.name}: give either a value or a skipped_reason.")
        if is_null != (self.status in ("invalid", "skipped", "failed")):
            raise ValueError(f"{self.name}: status {self.status!r} does not fit the value.")
        numbers = [self.value, *(self.interval or ()), *(self.trace or ())]
        if any(x is not None and not abs(x) <= LARGEST for x in numbers):
            raise ValueError(f"{self.name}: value, interval or trace is not finite or too large.")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ValueError(f"{self.name}: interval {self.interval} is upside down.")

    @property
    def is_of_its_unit(self) -> bool:
        """Whether there can be such a size; sums and differences of intensities go beyond 1."""
        most = max(map(abs, range_of(self.unit)))
        return self.unit == "intensity" or abs(self.value or 0) <= most + SLACK

    def to_dict(self) -> dict[str, Any]:
        """Plain types only; `from_dict` gives an equal record back."""
        row = asdict(self)
        for name in ("interval", "trace"):
            row[name] = None if row[name] is None else list(row[name])
        return row

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Record":
        """As `from_json`, of a row that is read already."""
        return cls.from_json(json.dumps(row), schema=row.get("schema", SCHEMA))

    @classmethod
    def from_json(cls, text: str, *, schema: Any = SCHEMA) -> "Record":
        """The record of a row of JSON; keys that are no field of a record are left out.

        Raises:
            ValueError: the row is of a schema that this version does not read, a field has
                another type, or the value is none of its unit.
        """
        if schema != SCHEMA:
            raise ValueError(f"schema is {schema!r}, this version reads {SCHEMA}")
        # As JSON: there lists stand for tuples and mappings for dataclasses, strictly.
        record = _reader().validate_json(text, strict=True)
        if not record.is_of_its_unit:
            raise ValueError(f"{record.name} is {record.value} {record.unit}, which cannot be")
        return record


@cache
def _reader() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Record)


def common_clip(clips: Sequence[ClipInfo]) -> ClipInfo:
    """What all clips share; a field in which they differ is None."""
    found = {f.name: {getattr(clip, f.name) for clip in clips} for f in fields(ClipInfo)}
    return ClipInfo(**{name: values.pop() for name, values in found.items() if len(values) == 1})


RANGES = {
    **dict.fromkeys(("0..1", "intensity", "intensity^2"), (0.0, 1.0)),
    **dict.fromkeys(("-1..1", "cos"), (-1.0, 1.0)),
    **dict.fromkeys(("lpips", "px", "count"), (0.0, math.inf)),
    "0..2": (0.0, 2.0),
    "100*cos": (-100.0, 100.0),
}
"""Unit -> the least and the largest value; another unit, such as signed intensity, has none."""

SLACK = 1e-3
"""So far rounding may carry a value out of its range."""


def range_of(unit: str, values: Iterable[float] = ()) -> tuple[float, float]:
    """What means of a unit can be; no limits if one of `values` is beyond those of the unit."""
    low, high = RANGES.get(unit, (-math.inf, math.inf))
    is_within = all(low - SLACK <= value <= high + SLACK for value in values)
    return (low, high) if is_within else (-math.inf, math.inf)


def mean_of(values: Sequence[float]) -> float:
    """The mean, independent of the order of the values bit for bit."""
    return math.fsum(values) / len(values)


def mean_interval(
    values: Sequence[float],
    *,
    prompts: Sequence[str | int] | None = None,
    low: float = -math.inf,
    high: float = math.inf,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Student's interval of the mean of values in [low, high], cut off at that range.

    Values of one prompt are one cluster; each counts by its own number of values, as in the mean.
    Without `prompts` each value is its own. None below two clusters; of two it is very wide (one
    degree of freedom). Independent of the order of the values bit for bit.
    """
    groups: dict[object, list[float]] = {}
    for key, value in zip(prompts or range(len(values)), values, strict=True):
        groups.setdefault(key, []).append(value)
    n = len(groups)
    if n < 2:
        return None
    from scipy.special import stdtrit

    mean = mean_of(values)
    sums = [math.fsum(x - mean for x in group) for group in groups.values()]
    error = math.sqrt(n / (n - 1) * math.fsum(x * x for x in sums)) / len(values)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * error
    # A mean that rounding put outside the range stays inside its interval.
    return max(mean - half, min(low, mean)), min(mean + half, max(high, mean))
