"""All metrics as rows of data: unit, direction, protocol."""

from dataclasses import dataclass
from pathlib import Path

from vidcfg.metrics.record import Record

_FLOW = "flow=dis-medium@128..720;mask=forward-backward+edges+border;coverage>=0.5"
_RANGE = "range=0..1"


@dataclass(frozen=True)
class Metric:
    """How values of this name are made and read. `family` is what `--metrics` selects."""

    family: str
    unit: str
    better: str
    protocol: str


METRICS: dict[str, Metric] = {
    "frame_diff": Metric("flicker", "intensity", "lower", _RANGE),
    "second_diff": Metric("flicker", "intensity", "lower", _RANGE),
    "vbench_temporal_flickering": Metric(
        "flicker", "0..1", "higher", "levels=8bit;no-static-filter"
    ),
    "luminance_flicker": Metric("flicker", "intensity", "lower", "luma=bt709;detrend=linear"),
    "hf_share": Metric("flicker", "0..1", "lower", "welch=hann32,hop16;cutoff=0.25"),
    "stride_pulse": Metric("flicker", "-1..1", "none", "energy=squared;neighbours=stride-1"),
    "warp_residual": Metric("warp", "intensity", "lower", _FLOW),
    "warp_error": Metric("warp", "intensity^2", "lower", _FLOW),
    "warp_stride_pulse": Metric("warp", "-1..1", "none", _FLOW),
    "long_warp_2": Metric("warp", "intensity", "lower", _FLOW + ";pairs=disjoint"),
    "long_warp_4": Metric("warp", "intensity", "lower", _FLOW + ";pairs=disjoint"),
    "long_warp_8": Metric("warp", "intensity", "lower", _FLOW + ";pairs=disjoint"),
    "dynamic_degree": Metric(
        "motion", "px", "none", "flow=dis-medium@128..720;top=5%;side=256;fps=8"
    ),
    "motion_smoothness": Metric(
        "motion", "0..1", "higher", "flow=dis-medium@128..720;interpolate=odd"
    ),
    "freeze_share": Metric("motion", "0..1", "lower", "below=0.1*local-median"),
    "jump_share": Metric("motion", "0..1", "lower", "above=1.6*flow|3*change|flow-lost"),
    "saturation": Metric("appearance", "0..1", "none", "hsv-saturation"),
    "clipped_share": Metric("appearance", "0..1", "lower", "within=0.5/255"),
    "contrast": Metric("appearance", "intensity", "none", "luma=bt709;sd"),
    "sharpness": Metric("appearance", "intensity", "none", "luma=bt709;gradient=forward"),
    "contrast_drift": Metric("appearance", "log", "none", "luma=bt709;sd;slope*(T-1)"),
    "colour_drift": Metric("appearance", "intensity", "lower", "mean-rgb;slope*(T-1);norm"),
}

NET_METRICS: dict[str, Metric] = {
    "lpips_adjacent": Metric("lpips", "lpips", "lower", "lpips-0.1;input=-1..1;no-resize"),
    "lpips_warp": Metric("lpips", "lpips", "lower", "lpips-0.1;input=-1..1;no-resize;" + _FLOW),
    "clip_score": Metric("clip", "100*cos", "higher", "raw-cosine;every-frame-up-to-8-fps"),
    "clip_consistency": Metric("clip", "cos", "higher", "adjacent-frames-up-to-8-fps"),
    "align": Metric("mini", "cos", "higher", "clip=first"),
    "attribute_accuracy": Metric("mini", "0..1", "higher", "clip=first;attributes-in-prompt"),
    "accuracy": Metric("mini", "0..1", "higher", "clip=first;attributes-in-prompt"),
    "fvd": Metric("distribution", "feature^2", "lower", "frechet"),
    "fd": Metric("distribution", "feature^2", "lower", "frechet"),
    "fvd_infinity": Metric("distribution", "feature^2", "lower", "frechet;line-in-1/n"),
    "fd_infinity": Metric("distribution", "feature^2", "lower", "frechet;line-in-1/n"),
    "kd": Metric("distribution", "mmd^2", "lower", "poly3,gamma=1/d,offset=1;unbiased"),
    "mind": Metric("distribution", "feature^2", "lower", "sliced;directions=2000;seed=0"),
    "precision": Metric("distribution", "0..1", "higher", "k=5;ties=strict"),
    "recall": Metric("distribution", "0..1", "higher", "k=5;ties=strict"),
    "density": Metric("distribution", "ratio", "higher", "k=5;ties=strict"),
    "coverage": Metric("distribution", "0..1", "higher", "k=5;ties=strict"),
}
"""Metrics that need a net, by the part of their name before the bracket that names it."""


def measured(
    name: str, value: float | None, *, n: int, protocol: str = "", reason: str = "", **rest
) -> Record:
    """A record of a catalogued metric, `name` with or without its net in brackets.

    `protocol` is appended to the catalogue's own.

    Without a value, the status is `invalid` unless `rest` names another.
    """
    metric = METRICS.get(name) or NET_METRICS[name.partition("[")[0]]
    if value is None:
        rest.setdefault("status", "invalid")
        rest["skipped_reason"] = reason
    full = ";".join(part for part in (metric.protocol, protocol) if part)
    return Record(
        name=name, value=value, n=n, protocol=full, unit=metric.unit, better=metric.better, **rest
    )


def lpips_names(net: str) -> tuple[str, str]:
    """The names of the two LPIPS records with this backbone."""
    return f"lpips_adjacent[{net}]", f"lpips_warp[{net}]"


def clip_names(model: str) -> tuple[str, str]:
    """The names of the two CLIP records of this model."""
    label = clip_label(model)
    return f"clip_score[{label}]", f"clip_consistency[{label}]"


def clip_label(model: str) -> str:
    """A short name: the last part of a repository or folder, or the open_clip name."""
    if model.startswith("open_clip:"):
        return model.partition("@")[0]
    return Path(model).name
