"""Number checks and an exact linear blend, shared by schedules and frame weights. numpy only."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
from jaxtyping import Float64

Number = float | int
Pairs = Sequence[Sequence[Number]]


def check_number(
    what: str,
    value: object,
    *,
    low: Number = -math.inf,
    high: Number = math.inf,
    above: Number | None = None,
    fix: str = "",
) -> float:
    """Return `value` as a float, or raise a ValueError naming `what`, the value and its range.

    The range is low <= value <= high and, if `above` is given, value > above. NaN, infinities and
    booleans are never allowed. `fix` is added as a sentence that says what to type.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    in_range = is_number and math.isfinite(value) and low <= value <= high
    if in_range and (above is None or value > above):
        return float(value)
    if above is not None:
        allowed = f"above {above:g}" + (f" and at most {high:g}" if high < math.inf else "")
    elif low > -math.inf and high < math.inf:
        allowed = f"from {low:g} to {high:g}"
    elif low > -math.inf:
        allowed = f"at least {low:g}"
    else:
        allowed = "finite"
    raise ValueError(f"{what} is {value!r}, but must be a number {allowed}. {fix}".rstrip())


def check_count(what: str, value: object) -> int:
    """Return `value` as an int of at least 1, or raise a ValueError that names `what`."""
    if isinstance(value, Integral) and not isinstance(value, bool) and value >= 1:
        return int(value)
    raise ValueError(f"{what} is {value!r}, but must be a whole number of at least 1.")


def check_choice(what: str, value: object, allowed: Sequence[str]) -> None:
    """Raise a ValueError that lists the allowed words unless `value` is one of them."""
    if value not in allowed:
        raise ValueError(f"{what} is {value!r}. Use one of: {', '.join(allowed)}.")


def check_points(
    what: str, points: Pairs, *, low: Number, high: Number
) -> tuple[tuple[float, float], ...]:
    """Return points [[position, value], ...] as tuples of floats.

    Raises:
        ValueError: unless there is at least one point, each has two numbers, positions lie in 0..1
            and rise strictly, and values lie in low..high.
    """
    if len(points) == 0:
        raise ValueError(f"{what} is empty. Give at least one point, such as [[0, 1]].")
    checked = []
    for index, point in enumerate(points):
        name = f"{what}[{index}]"
        if len(point) != 2:
            raise ValueError(f"{name} is {list(point)}, but must be [position, value].")
        position = check_number(f"{name} position", point[0], low=0, high=1)
        if checked and position <= checked[-1][0]:
            raise ValueError(
                f"{name} is at position {position:g}, after one at {checked[-1][0]:g}. "
                f"Write the points in rising order; for a jump, use two positions a little apart."
            )
        checked.append((position, check_number(f"{name} value", point[1], low=low, high=high)))
    return tuple(checked)


def check_interval(what: str, start: object, stop: object) -> tuple[float, float]:
    """Return (start, stop) as floats, or raise a ValueError unless 0 <= start <= stop <= 1."""
    first = check_number(f"{what}: from", start, low=0, high=1)
    last = check_number(f"{what}: to", stop, low=0, high=1)
    if first > last:
        raise ValueError(
            f"{what}: from is {first:g}, but to is {last:g}. Progress runs from 0 (noisiest) "
            f"to 1. Use from: {last:g}, to: {first:g}."
        )
    return first, last


def check_interval_has_step(
    what: str, start: float, stop: float, progress_K: Float64[np.ndarray, "K"]
) -> None:
    """Raise a ValueError if no step's progress lies in start..stop (both ends included)."""
    if ((progress_K >= start) & (progress_K <= stop)).any():
        return
    outside_K = np.maximum(start - progress_K, progress_K - stop)
    nearest = progress_K[np.argmin(outside_K)]
    raise ValueError(
        f"{what} from {start:g} to {stop:g} holds none of the {len(progress_K)} steps, so it "
        f"guides nothing. Widen it to include the nearest step, at progress {nearest:.4g}."
    )


def blend(start: float, end: float, t: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """start + (end - start) t: exactly `start` at t = 0 and `end` at t = 1, never beyond them."""
    blended = start + (end - start) * t
    blended = np.clip(blended, min(start, end), max(start, end))
    return np.where(t == 1.0, end, np.where(t == 0.0, start, blended)).astype(np.float64)
