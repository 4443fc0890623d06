"""The whole comparison: pair, judge, and find the clips and frames behind the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from vidcfg.regress.change import RepeatNoise
from vidcfg.regress.clips import ClipSet, MeasuredClip
from vidcfg.regress.judge import Judgement, MetricResult, judge
from vidcfg.regress.pairs import Paired, pair
from vidcfg.regress.policy import MetricRule, Policy

Span = tuple[int, int]
"""First and last frame of a place in a clip, counted from 0."""


@dataclass(frozen=True, eq=False)
class Worst:
    """The clip that got worst by one metric, and where: spans of frames, worst first.

    `spans_t` has the frames that each entry of the two traces belongs to (empty: no traces).
    `block` is the worst place of `block_frame` in the new clip: top, left, bottom and right in
    pixels, where the metric knows one.
    """

    metric: str
    new: MeasuredClip
    base: MeasuredClip
    frames: tuple[Span, ...] = ()
    spans_t: tuple[Span, ...] = ()
    new_t: tuple[float | None, ...] = ()
    base_t: tuple[float | None, ...] = ()
    block: tuple[int, ...] | None = None
    block_frame: int | None = None

    def __str__(self) -> str:
        """`worst in 'a red circle', seed 0: 0.0051 -> 0.0103, frames 5-6`."""
        values = (clip.value(self.metric) for clip in (self.base, self.new))
        old, new = ("not measurable" if value is None else f"{value:.4g}" for value in values)
        text = f"worst in {self.new.key}: {old} -> {new}"
        if self.frames:
            shown = ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in self.frames)
            text += f", frame{'' if shown.isdigit() else 's'} {shown}"
        if self.block is not None:
            text += f"; worst block of all in frame {self.block_frame}, "
            text += "rows {0} to {2}, columns {1} to {3}".format(*self.block)
        return text


@dataclass(frozen=True, eq=False)
class GateOutcome:
    """A verdict with everything a report shows. `worst` has the worst clip of each metric."""

    judgement: Judgement
    paired: Paired
    policy: Policy
    worst: Mapping[str, Worst]
    new: ClipSet
    base: ClipSet

    @property
    def verdict(self) -> str:
        return self.judgement.verdict


def check_clips(new: ClipSet, base: ClipSet, policy: Policy | None = None) -> GateOutcome:
    """Compare two sets of clips.

    Raises:
        ResultsError: the sets cannot be compared.
    """
    policy = policy or Policy()
    paired = pair(new, base, policy)
    judgement = judge(paired.metrics, policy, RepeatNoise.saved(base.facts))
    worst = {}
    for result in judgement.metrics:
        if (index := _worst_index(result, paired)) is not None:
            worst[result.name] = _worst(index, result, policy.metrics[result.name], paired)
    return GateOutcome(judgement, paired, policy, worst, new, base)


def _worst_index(result: MetricResult, paired: Paired) -> int | None:
    """The clip with the largest change in the bad direction, or the first that lost its value.

    None if no clip got worse.
    """
    if result.is_lost:
        pairs = paired.metrics[result.name]
        return int(np.argmax(np.isfinite(pairs.base_N) & ~np.isfinite(pairs.new_N)))
    if result.tested is None:
        return None
    value, index = max(zip(result.tested.worse_n, result.tested.positions_n))
    return int(index) if value > 0 else None


def _worst(index: int, result: MetricResult, rule: MetricRule, paired: Paired) -> Worst:
    new, base = paired.new[index], paired.base[index]
    direction = result.tested.direction if result.tested else rule.direction
    new_t, base_t = _traces(result.name, new, base)
    spans = _spans(result.name, len(new_t), new.info.num_frames) if len(new_t) else ()
    record = new.records.get(result.name)
    worst = Worst(result.name, new, base)
    if place := record and record.extra.get("worst"):
        worst = replace(worst, block=tuple(place["block"]), block_frame=place["frame"])
    if not spans:
        return worst
    # The frames, by how much worse each is than the baseline's.
    if result.name == "contrast_drift":
        excess = np.abs(new_t - new_t[0]) - np.abs(base_t - base_t[0])
    else:
        excess = rule.transformed(new_t) - rule.transformed(base_t)
    excess *= direction
    excess[np.isnan(new_t) & ~np.isnan(base_t)] = np.inf
    # At most three that are worse by at least a third of the worst one, worst first.
    top = max((value for value in excess if value > 0), default=np.inf)
    kept = sorted(np.flatnonzero(excess >= top / 3), key=lambda t: -excess[t])
    frames = tuple(spans[t] for t in kept[:3])
    # A complement is shown as what is compared, so that up is bad.
    if rule.of == "complement":
        new_t, base_t = 1 - new_t, 1 - base_t
    new_t, base_t = (
        tuple(None if np.isnan(x) else float(x) for x in trace) for trace in (new_t, base_t)
    )
    return replace(worst, frames=frames, spans_t=spans, new_t=new_t, base_t=base_t)


def _traces(name: str, new: MeasuredClip, base: MeasuredClip) -> tuple[np.ndarray, np.ndarray]:
    """Both traces, NaN where a frame has no value; empty where they do not fit each other."""
    # A drift is that of what another metric has per frame.
    sources = {"contrast_drift": "contrast", "brightness_drift": "luminance_flicker"}
    source = sources.get(name, name)
    traces = []
    for clip in (new, base):
        record = clip.records.get(source)
        trace = np.array((record and record.trace) or (), dtype=np.float64)
        if name == "luminance_flicker":
            trace = np.abs(trace[2:] - 2 * trace[1:-1] + trace[:-2]) / 2
        traces.append(trace)
    lengths = {len(trace) for trace in traces if len(trace)}
    if len(lengths) != 1 or new.info is None or new.info.num_frames is None:
        return np.empty(0), np.empty(0)
    missing = np.full(lengths.pop(), np.nan)
    return tuple(trace if len(trace) else missing for trace in traces)


def _spans(name: str, length: int, num_frames: int) -> tuple[Span, ...]:
    """The frames that each of `length` entries of a trace belongs to."""
    if name == "motion_smoothness":
        # One entry for every odd frame, judged from the frames before and after it.
        return tuple((2 * i, 2 * i + 2) for i in range(length))
    # One for each frame, pair, or frame with two neighbours.
    ends = {num_frames: (0, 0), num_frames - 1: (0, 1), num_frames - 2: (1, 1)}.get(length)
    return tuple((t + ends[0], t + ends[1]) for t in range(length)) if ends else ()
