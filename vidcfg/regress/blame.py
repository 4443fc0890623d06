"""The clip and the frames behind a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidcfg.metrics.record import Record
from vidcfg.regress.clips import Clip, Key
from vidcfg.regress.estimate import transformed
from vidcfg.regress.gate import MetricResult
from vidcfg.regress.pairing import Paired
from vidcfg.regress.policy import MetricRule

Span = tuple[int, int]
"""First and last frame of a place in a clip, counted from 0."""


@dataclass(frozen=True, eq=False)
class Worst:
    """The clip that got worst by one metric, and where: spans of frames, worst first.

    `spans_t` has the frames that each entry of the two traces belongs to (empty: no traces).
    """

    metric: str
    key: Key
    new: Clip
    base: Clip
    frames: tuple[Span, ...]
    spans_t: tuple[Span, ...] = ()
    new_t: tuple[float | None, ...] = ()
    base_t: tuple[float | None, ...] = ()

    @property
    def where(self) -> str:
        """`frames 5-6, 9`, or nothing where the metric has no trace."""
        shown = [f"{a}-{b}" if a != b else str(a) for a, b in self.frames]
        if not shown:
            return ""
        is_one = len(shown) == 1 and "-" not in shown[0]
        return f"frame{'' if is_one else 's'} {', '.join(shown)}"


def worst_of(result: MetricResult, rule: MetricRule, paired: Paired) -> Worst | None:
    """The clip with the largest change in the bad direction, or the first that lost its value.

    None if no clip got worse.
    """
    index = _worst_index(result, paired)
    if index is None:
        return None
    new, base = paired.new[index], paired.base[index]
    spans, new_t, base_t = _traces(result.name, new, base)
    direction = -1 if rule.bad == "down" else 1
    if rule.bad == "either" and result.change is not None and result.change < 0:
        direction = -1
    excess = _excess(result.name, rule, direction, new_t, base_t)
    return Worst(
        metric=result.name,
        key=paired.keys[index],
        new=new,
        base=base,
        frames=tuple(spans[t] for t in _largest(excess)),
        spans_t=spans,
        new_t=_shown(rule, new_t),
        base_t=_shown(rule, base_t),
    )


def _shown(rule: MetricRule, trace: Sequence[float | None]) -> tuple[float | None, ...]:
    """A complement is shown as what is compared, so that up is bad."""
    if rule.of != "complement":
        return tuple(trace)
    return tuple(None if x is None else 1 - x for x in trace)


def _worst_index(result: MetricResult, paired: Paired) -> int | None:
    if result.is_lost:
        pairs = paired.metrics[result.name]
        gone = np.isfinite(pairs.base_N) & ~np.isfinite(pairs.new_N)
        return int(np.argmax(gone))
    known = [(value, i) for i, value in enumerate(result.worse) if value is not None]
    return max(known)[1] if known and max(known)[0] > 0 else None


def _traces(name: str, new: Clip, base: Clip) -> tuple[tuple[Span, ...], tuple, tuple]:
    """Spans and both traces; empty where a metric has none on both sides."""
    # The drift of contrast is that of the contrast per frame.
    source = {"contrast_drift": "contrast"}.get(name, name)
    records = [clip.records.get(source) for clip in (new, base)]
    traces = [_trace(name, record) for record in records]
    num_frames = new.info.num_frames if new.info else None
    lengths = {len(trace) for trace in traces if trace}
    if len(lengths) != 1 or num_frames is None:
        return (), (), ()
    length = lengths.pop()
    spans = _spans(name, length, num_frames)
    new_t, base_t = (trace or (None,) * length for trace in traces)
    return (spans, new_t, base_t) if spans else ((), (), ())


def _trace(name: str, record: Record | None) -> tuple[float | None, ...]:
    if record is None or record.trace is None:
        return ()
    if name != "luminance_flicker":
        return record.trace
    luma = np.array([np.nan if x is None else x for x in record.trace])
    bend = np.abs(luma[2:] - 2 * luma[1:-1] + luma[:-2]) / 2
    return tuple(None if np.isnan(x) else float(x) for x in bend)


def _spans(name: str, length: int, num_frames: int) -> tuple[Span, ...]:
    if name == "motion_smoothness":
        # One entry for every odd frame, judged from the frames before and after it.
        return tuple((2 * i, 2 * i + 2) for i in range(length))
    if length == num_frames:
        return tuple((t, t) for t in range(length))
    if length == num_frames - 1:
        return tuple((t, t + 1) for t in range(length))
    if length == num_frames - 2:
        return tuple((t + 1, t + 1) for t in range(length))
    return ()


def _excess(name: str, rule: MetricRule, direction: int, new_t, base_t) -> np.ndarray:
    """How much worse every entry is; what can no longer be measured is infinitely worse."""
    new, base = (np.array([np.nan if x is None else x for x in t]) for t in (new_t, base_t))
    if name == "contrast_drift":
        new, base = (np.abs(x - x[0]) if len(x) else x for x in (new, base))
    else:
        new, base = transformed(rule, new), transformed(rule, base)
    excess = direction * (new - base)
    excess[np.isnan(new) & ~np.isnan(base)] = np.inf
    return excess


def _largest(excess: Sequence[float] | np.ndarray, count: int = 3) -> list[int]:
    """Entries that are worse by at least a third of the worst one, worst first."""
    known = [(value, -t) for t, value in enumerate(excess) if value > 0]
    if not known:
        return []
    top = max(known)[0]
    kept = [(value, t) for value, t in known if value == top or value >= top / 3]
    return [-t for _, t in sorted(kept, reverse=True)[:count]]
