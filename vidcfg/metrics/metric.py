"""What a metric is: one number about videos, whose facts stand on it, registered by its name."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from vidcfg.metrics.record import LARGEST, Record
from vidcfg.plugins import code_of, load_plugins, raised_in


@dataclass(frozen=True)
class MetricFamily:
    """What `--metrics` selects. `module` declares its metrics, `text` tells what they are.

    `group` is where tables show them, unless a metric stands elsewhere.
    `net` is the feature net that its metrics take clips through. A family with weights of its own
    has `label(settings)` and `load_meter(settings, prompt=, fps=)` in its module.
    """

    module: str
    text: str
    net: str | None = None
    has_weights: bool = False
    group: str = "look"

    @property
    def is_free(self) -> bool:
        """Neither net nor weights are needed."""
        return self.net is None and not self.has_weights

    def load(self) -> ModuleType:
        """The module; a name that starts with a point is one of this package."""
        return import_module(self.module, __package__)


FAMILIES: dict[str, MetricFamily] = {
    "flicker": MetricFamily(
        ".flicker", "differences, luminance, temporal spectrum, stride pulse", group="flicker"
    ),
    "warp": MetricFamily(
        ".warp", "motion-compensated flicker and judder (optical flow)", group="flicker"
    ),
    "motion": MetricFamily(
        ".motion", "dynamic degree, smoothness, freezes, jumps", group="motion"
    ),
    "appearance": MetricFamily(".appearance", "saturation, clipping, contrast, sharpness"),
    "mini": MetricFamily(
        ".features.mini",
        "align[mini], attribute accuracy; with --reference fd, kd, precision, recall",
        net="mini",
        group="alignment",
    ),
    "lpips": MetricFamily(
        ".lpips",
        "LPIPS of neighbours, plain and motion-compensated",
        has_weights=True,
        group="flicker",
    ),
    "clip": MetricFamily(
        ".clip", "CLIP score and consistency", has_weights=True, group="alignment"
    ),
    "fvd": MetricFamily(
        ".distribution", "FVD and its relatives on I3D features (needs --reference)", "i3d-k400"
    ),
    "r3d18": MetricFamily(
        ".distribution", "the same on R3D-18 features (needs --reference)", "r3d18-k400"
    ),
}
WEIGHT_FREE = tuple(name for name, family in FAMILIES.items() if family.is_free)


@dataclass(frozen=True)
class Quantity:
    """What is taken of each frame of a clip (`lag` 0), or of each pair of frames `lag` apart.

    `of` gets the frame [C, H, W] or the `Pair`. Pairs start `step` frames apart. Frames with a
    shorter side below `least` have none. `into()` makes what keeps the values of a clip.
    """

    of: Callable[[Any], Any]
    lag: int = 0
    step: int = 1
    least: int = 1
    into: Callable[[], Any] = list


@dataclass(frozen=True)
class Metric:
    """How values of this name are made and read; `better` is `lower`, `higher` or `none`.

    `outcome` makes them from the quantities of a clip that the metric `needs`, as the arguments
    of `measured`; None: a net makes them. With `marks_still` a clip in which nothing changes has
    the status `static`. A clip of several shots has the `mean`, the `max` or the `sum` of theirs.
    `group` is that of its family unless given.
    """

    name: str
    family: str
    unit: str
    better: str
    protocol: str
    needs: Sequence[Quantity] = ()
    outcome: Callable[[Any], dict[str, Any]] | None = None
    marks_still: bool = False
    of_shots: Literal["mean", "max", "sum"] = "mean"
    group: str = ""


METRICS: dict[str, Metric] = {}
"""By name; for a net's metric, the part before the bracket that names the net. Filled as modules
are imported; `vidcfg.metrics.catalogue` imports all."""


def declare(name: str, *facts: Any, **how: Any) -> None:
    """Register a metric by the fields of `Metric`.

    Raises:
        ValueError: if another metric has the name.
    """
    if name in METRICS:
        raise ValueError(f"a metric is named {name} already; choose another name.")
    METRICS[name] = Metric(name, *facts, **how)


def metric(*facts: Any, **how: Any) -> Callable[[Callable], Callable]:
    """Register the decorated function as a metric's outcome; `facts` are from name to needs.

    It gets the `ClipMeasures` of a shot and returns `averaged(...)` or `computed(...)`. `how` are
    the other fields of `Metric`.
    """

    def register(outcome: Callable) -> Callable:
        declare(*facts, outcome=outcome, **how)
        return outcome

    return register


def mean_metric(
    *facts: str, marks_still: bool = False, **taken: int
) -> Callable[[Callable], Callable]:
    """Register the mean over the clip of the decorated function of a frame [C, H, W], or a `Pair`.

    `facts` are those of `Metric`, from name to protocol; `taken` those of `Quantity`, such as
    `lag=1` for pairs of neighbours.
    """

    def register(of: Callable) -> Callable:
        quantity = Quantity(of, **taken)

        def outcome(clip: Any) -> dict[str, Any]:
            return averaged(clip[quantity], reason=clip.too_small(quantity))

        declare(*facts, [quantity], outcome=outcome, marks_still=marks_still)
        return of

    return register


def own_metric(
    *facts: str, marks_still: bool = False, **taken: int
) -> Callable[[Callable], Callable]:
    """Register the mean over the clip of a function of a frame [C, H, W], float32 in 0..1.

    With `lag=1` it gets a pair of neighbours, `pair.first` and `pair.second`. `facts` are name,
    family, unit, better and protocol. A clip for which it raises, or gives no finite number, has
    the reason in place of a value.
    """

    def register(of: Callable) -> Callable:
        @functools.wraps(of)
        def number_or_reason(source: Any) -> float | str:
            try:
                value = float(of(_in_unit(source)))
            except Exception as error:  # of somebody else's code, about one metric of one clip
                return f"{type(error).__name__}: {error}{raised_in(error, of.__module__)}"
            return value if abs(value) <= LARGEST else f"the number is {value}"

        known = METRICS.get(facts[0])
        before = known and known.needs and known.needs[0].of
        if before and (before.__module__, before.__qualname__) == (of.__module__, of.__qualname__):
            del METRICS[facts[0]]  # a cell of a notebook that is run again
        mean_metric(*facts, marks_still=marks_still, **taken)(number_or_reason)
        return of

    return register


def _in_unit(source: Any) -> Any:
    """A frame, or a pair of frames, as float32 in [0, 1]."""
    from vidcfg.metrics.frames import to_unit

    if not hasattr(source, "views"):
        return to_unit(source)
    views = tuple(type(view)(to_unit(view.frame)) for view in source.views)
    return replace(source, views=views, halves=None)


def averaged(points: Iterable, *, reason: str = "") -> dict[str, Any]:
    """The mean of one value per frame or pair, with these as trace; skipped if there is none.

    A text among them is the reason why there is no value.
    """
    import numpy as np

    points = list(points)
    why = next((point for point in points if isinstance(point, str)), None)
    if why is not None:
        reason = f"its function gave no number: {why}"
        return {"value": None, "n": 0, "reason": reason, "status": "invalid"}
    trace = tuple(float(point) for point in points)
    if not trace:
        return skipped(reason or "the clip has too few frames")
    return {"value": float(np.mean(trace)), "n": len(trace), "trace": trace}


def computed(
    compute: Callable[..., float], *arguments: Any, n: int, **rest: Any
) -> dict[str, Any]:
    """A value of the whole clip, skipped with the reason where `compute` raises ValueError."""
    try:
        return {"value": compute(*arguments), "n": n, **rest}
    except ValueError as error:
        return skipped(str(error), n=n) | rest


def skipped(reason: str, *, n: int = 0) -> dict[str, Any]:
    """The outcome of a metric that has no value."""
    return {"value": None, "n": n, "reason": reason, "status": "skipped"}


GROUPS = ("flicker", "motion", "alignment", "distribution", "look")
"""In the order in which tables show them."""


def group_of(name: str) -> str:
    """The group of a metric, `name` with or without its net in brackets.

    Distances between sets belong to no one family of their own.
    """
    known = METRICS[name.partition("[")[0]]
    family = FAMILIES.get(known.family)
    return known.group or (family.group if family else "distribution")


def metrics_of(family: str) -> list[Metric]:
    """The metrics of a family, in the order in which they are declared; plugins' come last."""
    FAMILIES[family].load()
    load_plugins()
    return [metric for metric in METRICS.values() if metric.family == family]


def foreign_metrics(families: Sequence[str]) -> dict[str, str]:
    """What tells the code (`code_of`) of each metric of some families that is not ours."""
    load_plugins()
    made = {m.name: m.needs[0].of for m in METRICS.values() if m.family in families and m.needs}
    return {name: code for name, of in made.items() if (code := code_of(of))}


@dataclass(frozen=True)
class Shot:
    """The frames of a clip between two cuts, and the outcome of each metric on them."""

    start: int
    num_frames: int
    outcomes: Sequence[dict[str, Any]]


def over_shots(metric: Metric, shots: Sequence[Shot], index: int) -> dict[str, Any]:
    """The outcome of a clip by those of its shots; a mean counts each by its `n`.

    Shots without a value, such as those that are too short, have no part in it; one that a metric
    failed on leaves the clip without. The trace is that of the clip, None where a pair would reach
    over a cut.
    """
    outcomes = [shot.outcomes[index] for shot in shots]
    known = [outcome for outcome in outcomes if outcome["value"] is not None]
    if broken := [outcome for outcome in outcomes if outcome.get("status") == "invalid"]:
        return broken[0]
    if len(shots) == 1 or not known:
        return max(outcomes, key=lambda outcome: outcome["n"])
    import numpy as np

    # Values, and what is known beside them.
    counts = [outcome["n"] for outcome in known]
    ways = {"mean": lambda x: np.average(x, weights=counts), "max": max, "sum": sum}
    value = ways[metric.of_shots]([outcome["value"] for outcome in known])
    made = known[0] | {"value": float(value), "n": sum(counts)}
    if "extra" in made:
        found = [outcome["extra"] for outcome in known]
        coverage = np.average([extra["coverage"] for extra in found], weights=counts)
        worst = max((extra["worst"] for extra in found), key=lambda worst: worst["value"])
        made["extra"] = {"coverage": float(coverage), "worst": worst}

    # Entry t stays that of the frame, or the pair or triple that begins with it.
    if made.get("trace"):
        step, trace = metric.needs[0].step, []
        traced = [(s, part) for s, o in zip(shots, outcomes) if (part := o.get("trace"))]
        for shot, part in traced:
            trace += [None] * (-(-shot.start // step) - len(trace)) + list(part)
        if step == 1:
            lag = min(shot.num_frames - len(part) for shot, part in traced)
            trace += [None] * (shots[-1].start + shots[-1].num_frames - lag - len(trace))
        made["trace"] = tuple(trace)
    return made


def measured(
    name: str, value: float | None, *, n: int, protocol: str = "", reason: str = "", **rest: Any
) -> Record:
    """A record of a registered metric, `name` with or without its net in brackets.

    `protocol` is appended to the metric's own. Without a value, the status is `invalid` unless
    `rest` names another.
    """
    known = METRICS[name.partition("[")[0]]
    if value is None:
        rest.setdefault("status", "invalid")
        rest["skipped_reason"] = reason
    full = ";".join(part for part in (known.protocol, protocol) if part)
    return Record(
        name=name, value=value, n=n, protocol=full, unit=known.unit, better=known.better, **rest
    )
