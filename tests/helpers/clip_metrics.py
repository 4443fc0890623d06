"""Records, traces and values of clips, by the meters of the package, and plain oracles of them."""

import numpy as np

from vidcfg.metrics.catalogue import METRICS
from vidcfg.metrics.flow import Pair, View
from vidcfg.metrics.meters import ClipMeasures, measure
from vidcfg.metrics.metric import WEIGHT_FREE, metrics_of
from vidcfg.metrics.record import ClipInfo

EIGHT_FPS = ClipInfo(fps=8.0)


def pair_of(first, second, middle=None):
    """Two frames, or the first and the last of three with both pairs of neighbours."""
    halves = None if middle is None else (pair_of(first, middle), pair_of(middle, second))
    return Pair((View(first), View(second)), lag=1 if middle is None else 2, halves=halves)


def meter_of(*families, stride=4, fps=8.0, without=()):
    """A meter of all weight-free metrics, or of those of some families."""
    chosen = [m for family in families or WEIGHT_FREE for m in metrics_of(family)]
    return ClipMeasures([m for m in chosen if m.name not in without], stride=stride, fps=fps)


def records_of(frames, *families, clip=EIGHT_FPS, **options):
    """Metric name -> record."""
    meter = meter_of(*families, fps=clip.fps, **options)
    assert measure(frames, [meter]) == len(frames)
    return {record.name: record for record in meter.finish()}


def one_record(name, frames, *, fps=8.0, stride=4):
    meter = ClipMeasures([METRICS[name]], stride=stride, fps=fps)
    measure(frames, [meter])
    return meter.finish()[0]


def value_of(name, frames, **options):
    """The value of a metric; ValueError with the reason if it is skipped."""
    record = one_record(name, frames, **options)
    if record.status == "skipped":
        raise ValueError(record.skipped_reason)
    return record.value


def trace_of(name, frames, **options):
    return np.array(one_record(name, frames, **options).trace)


def frame_diff(frames):
    return trace_of("frame_diff", frames)


def second_diff(frames):
    return trace_of("second_diff", frames)


def frame_energy(frames):
    """Mean squared change of each pair of neighbours."""
    return trace_of("stride_pulse", frames)


def motion_trace(frames, *, fps):
    return trace_of("dynamic_degree", frames, fps=fps)


def plain_values(frames):
    """Formulas on the whole clip in float64, for metrics that need no flow."""
    x = np.asarray(frames, dtype=np.float64)
    first, second = np.diff(x, axis=0), np.diff(x, n=2, axis=0)
    levels = np.rint(x * 255) / 255
    return {
        "frame_diff": np.abs(first).mean(),
        "second_diff": np.abs(second).mean(),
        "vbench_temporal_flickering": 1 - np.abs(np.diff(levels, axis=0)).mean(),
    }
