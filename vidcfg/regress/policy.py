"""What a gate checks, how large a change matters, and how often it may be wrong."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from vidcfg.metrics.paired import log_ratios
from vidcfg.settings.base import ConfigModel, Finding, Fraction, Positive, Range
from vidcfg.settings.document import apply_overrides, load_document, read_document, validate

LEVEL = 1 / 255 / 4
"""A quarter of an 8-bit level: below it a difference of intensities is rounding."""

TINY = 1e-4
"""A fortieth of an 8-bit level, a change that is none."""

ALARMS = 0.35
"""The part of alpha that is for alarms, over all clips and metrics."""

NotNegative = Annotated[float, Range(0, 1e9)]


class MetricRule(ConfigModel):
    """When a change of one metric is a regression.

    With `scale: ratio` clips are compared by log((new + floor) / (base + floor)) and `margin` is
    a relative change, 0.02 = 2 %; with `difference` by new - base, in the metric's unit. A change
    counts if it is in the `bad` direction and larger than `margin` and, as a mean difference,
    than `at_least`. A PASS shows that the change is below `tolerance`, which is never below
    `margin`. `of: complement` takes 1 - value first, `magnitude` abs(value).

    `weight` shares alpha out among the metrics. A `required` metric that cannot be measured keeps
    the gate from passing. `guard` names a metric that must not have got worse by more than its
    own margin for this one to pass, such as motion for flicker. `grows_with` names a metric that
    this one is proportional to, such as contrast for flicker in levels: a rise of it that is
    shown, up to its margin, is no change of this one.
    """

    bad: Literal["up", "down", "either"] = Field(description="up, down or either")
    scale: Literal["ratio", "difference"] = "ratio"
    of: Literal["value", "complement", "magnitude"] = "value"
    margin: Positive = Field(description="0.02 for 2 %")
    tolerance: Positive | None = None
    at_least: NotNegative = 0.0
    floor: Positive = LEVEL
    weight: Positive = 1.0
    required: bool = False
    guard: str | None = None
    grows_with: str | None = None

    def findings(self):
        if self.grows_with and not (self.is_ratio and self.bad == "up"):
            yield Finding(("grows_with",), "needs scale: ratio and bad: up. Delete it.")
        for name in ("margin", "tolerance"):
            if self.is_ratio and self.bad != "up" and (getattr(self, name) or 0) >= 1:
                message = "is a loss of everything or more. Write for example 0.1 for 10 %."
                yield Finding((name,), message)

    @property
    def is_ratio(self) -> bool:
        return self.scale == "ratio"

    @property
    def direction(self) -> int:
        """-1 if a fall is bad, else 1."""
        return -1 if self.bad == "down" else 1

    def changes(
        self, new: np.ndarray, base: np.ndarray, *, grown: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The change of every pair on the rule's scale, and its plain difference; up is positive.

        Nothing may be NaN. The base counts as larger by the share `grown`.
        """
        new, base = self.transformed(new), self.transformed(base) * (1 + grown)
        if not self.is_ratio:
            return new - base, new - base
        # Values that cannot be negative can fall below 0 by rounding.
        change = log_ratios(np.maximum(new, 0), np.maximum(base, 0), floor=self.floor)
        return change, new - base

    def transformed(self, values: np.ndarray) -> np.ndarray:
        """The values that are compared: `of` them."""
        if self.of == "complement":
            return 1 - values
        return np.abs(values) if self.of == "magnitude" else values

    def margin_of(self, direction: int) -> float:
        """The margin on the scale of `changes`, for a change up (1) or down (-1)."""
        return self._on_scale(self.margin, direction)

    def tolerance_of(self, direction: int) -> float:
        """What a PASS shows the change to be below, likewise."""
        return self._on_scale(max(self.tolerance or 0, self.margin), direction)

    def _on_scale(self, size: float, direction: int) -> float:
        return direction * math.log1p(direction * size) if self.is_ratio else size

    def alarm_of(self, direction: int) -> float:
        """The change of one clip that is a disaster, on the scale of `changes`.

        Twice (or half) the value, or 0.3 where differences are compared: far above what can be
        overlooked, and never below ten margins.
        """
        least = math.log(2) if self.is_ratio else 0.3
        return max(least, 10 * self.margin_of(direction))

    def shown(self, change: float) -> float:
        """A change on the scale of `changes` as a reader sees it: relative, or plain."""
        if not self.is_ratio or not math.isfinite(change):
            return change
        return math.expm1(min(change, 700.0))


_GUARDED = {"bad": "up", "at_least": TINY, "guard": "dynamic_degree"}
_LEVELS = {**_GUARDED, "grows_with": "contrast"}
_MOTION = {"bad": "down", "at_least": 0.05, "floor": 0.1}
_SHARE = {"bad": "up", "scale": "difference"}
_REQUIRED = {"required": True}

DEFAULTS: dict[str, dict[str, Any]] = {
    "mc_flicker": {"margin": 0.015, "tolerance": 0.05, "weight": 200.0, **_LEVELS, **_REQUIRED},
    "mc_flicker_p95": {"margin": 0.05, "tolerance": 0.15, **_LEVELS},
    "mc_flicker_peak": {"margin": 0.2, "tolerance": 0.5, **_LEVELS},
    "luminance_flicker": {"margin": 0.05, "tolerance": 0.1, **_LEVELS},
    "motion_smoothness": {"of": "complement", "margin": 0.03, "tolerance": 0.05, **_LEVELS},
    "judder": {"margin": 0.05, "tolerance": 0.1, **_LEVELS},
    "judder_peak": {"margin": 0.2, "tolerance": 0.5, **_LEVELS},
    "stride_pulse": {"margin": 0.03, "tolerance": 0.05, **_SHARE},
    "freeze_share": {"margin": 0.02, "tolerance": 0.03, **_SHARE},
    "held_share": {"margin": 0.02, "tolerance": 0.03, "weight": 0.1, **_SHARE},
    "jump_share": {"margin": 0.02, "tolerance": 0.03, **_SHARE},
    "cuts": {"margin": 0.02, "tolerance": 0.03, "weight": 0.1, **_SHARE},
    "dynamic_degree": {"margin": 0.1, "tolerance": 0.15, **_MOTION, **_REQUIRED},
    "mc_coverage": {**_SHARE, "bad": "down", "margin": 0.05},
    "sharpness": {"bad": "down", "margin": 0.03, "tolerance": 0.06, "at_least": TINY},
    "sharpness_pulse": {"margin": 0.02, "tolerance": 0.05, **_SHARE},
    "contrast": {"bad": "either", "margin": 0.05, "tolerance": 0.1, "at_least": 0.001},
    "brightness_drift": {"of": "magnitude", "margin": 0.015, "tolerance": 0.03, **_SHARE},
    "contrast_drift": {"of": "magnitude", "margin": 0.1, "tolerance": 0.15, **_SHARE},
    "saturation": {"margin": 0.03, "tolerance": 0.05, **_SHARE, "bad": "either"},
    "clipped_share": {"margin": 0.02, "tolerance": 0.03, **_SHARE},
    "colour_drift": {"margin": 0.015, "tolerance": 0.03, **_SHARE},
}
"""Flicker first: it gets 200 of 219 parts of what tests may err. docs/regress.md says of each
margin whether it comes from noise or from what a visible fault adds."""


def _completed(value: Any) -> Any:
    """Known metrics take what a file leaves out from DEFAULTS."""
    if not isinstance(value, dict):
        return value
    return {
        name: {**DEFAULTS.get(name, {}), **(rule or {})} if isinstance(rule, dict | None) else rule
        for name, rule in value.items()
    }


class Policy(ConfigModel):
    """The rules of a gate.

    `alpha`: how often a gate may fail without a change, over all metrics together; a third of it
    is for clips that stand out, the rest for tests of the mean. `power` is
    that of the detectable changes it prints. `unit`: clips of one prompt count as one (`prompt`),
    or each for itself (`clip`, for sets of few prompts; the verdict then holds for those prompts
    alone). `max_missing`: share of clips that only one side may have. `max_lost`: share of clips
    whose metric may become unmeasurable. `metrics` lists all that are checked.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    alpha: Annotated[float, Range(0.0001, 0.5)] = 0.05
    power: Annotated[float, Range(0.5, 0.999)] = 0.8
    unit: Literal["prompt", "clip"] = "prompt"
    max_missing: Fraction = 0.0
    max_lost: Fraction = 0.0
    metrics: Annotated[dict[str, MetricRule], BeforeValidator(_completed)] = Field(
        default_factory=lambda: {name: MetricRule(**rule) for name, rule in DEFAULTS.items()}
    )

    def findings(self):
        if not self.metrics:
            yield Finding(("metrics",), "is empty. Name at least one, such as mc_flicker: {}")
        for name, rule in self.metrics.items():
            if rule.guard == name:
                yield Finding(("metrics", name, "guard"), "names the metric itself. Delete it.")
            elif rule.guard is not None and rule.guard not in self.metrics:
                message = f"is '{rule.guard}', which is not checked. Add it to metrics, or null."
                yield Finding(("metrics", name, "guard"), message)
            if rule.grows_with not in (None, *self.metrics, *DEFAULTS):
                message = f"is '{rule.grows_with}', which is not checked. Write contrast, or null."
                yield Finding(("metrics", name, "grows_with"), message)
            elif (other := self.metrics.get(rule.grows_with)) and not other.is_ratio:
                message = f"is '{rule.grows_with}', which is compared by difference. Write null."
                yield Finding(("metrics", name, "grows_with"), message)

    def share(self, name: str, names: Iterable[str] | None = None) -> float:
        """The part of alpha at which a metric is tested before any other one has failed."""
        total = sum(self.metrics[other].weight for other in names or self.metrics)
        return self.test_alpha * self.metrics[name].weight / total

    @property
    def alarm_alpha(self) -> float:
        """How often alarms may go off without a change, over all clips and metrics."""
        return ALARMS * self.alpha

    @property
    def test_alpha(self) -> float:
        """How often tests of the mean may fail without a change, over all metrics."""
        return self.alpha - self.alarm_alpha


def load_policy(path: str | Path | None, overrides: Iterable[str] = ()) -> Policy:
    """The policy of a YAML file, the default one without a file; `--set path=value` put in.

    Raises:
        ConfigError: one line per problem, with file and line.
    """
    if path is None and not overrides:
        return Policy()
    if path is None:
        document = read_document(Policy().to_yaml(), source="the default policy")
    else:
        document = load_document(path)
    return validate(apply_overrides(document, overrides), Policy)
