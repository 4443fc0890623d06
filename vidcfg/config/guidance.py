"""`guidance`: everything that says how strongly which frame follows its prompt at which step."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vidcfg.config.base import AsTuple, ConfigModel, Finding, Fraction, Positive, Range, refuse
from vidcfg.config.frames import Frames, UniformFrames, Window
from vidcfg.config.methods import Cfg, Dual, Method, Multi, PerpNeg
from vidcfg.config.schedules import Scale, schedules_of
from vidcfg.config.validation import number_advice


class Rescale(ConfigModel):
    """Pull the guided prediction's size back towards the conditional one. `amount` 0 is off.

    `by: std` matches the standard deviation (Lin et al. 2024), `by: norm` the norm.
    """

    amount: Fraction = Field(description="a number from 0 to 1, 0 = off")
    by: Literal["std", "norm"] = "std"


class Threshold(ConfigModel):
    """Imagen's dynamic thresholding: clip x0 at a percentile of |x0|, where above `floor`."""

    percentile: Annotated[float, AfterValidator(Range(50, 100, above=True))] = 99.5
    floor: Positive = 1.0


def _rescale_from(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"amount": value}
    if not isinstance(value, dict | ConfigModel):
        advice = number_advice(value)
        raise refuse(
            f"but must be a number from 0 (off) to 1, or {{amount: 0.7, by: norm}}.{advice}"
        )
    return value


class Guidance(ConfigModel):
    """How to guide: `Guidance(scale=6.0, frames={"kind": "decay", "end": 0.2})`, as in YAML.

    strength[k, f] = 1 + (scale_k - 1) * weight_f, where 1 is off.

    Raises:
        ConfigError: naming each value that is not allowed, or has no effect beside the others.
    """

    method: Method = Cfg()
    scale: Scale = Field(description="a number such as 6.0, or a schedule")
    frames: Frames = UniformFrames()
    windows: Annotated[tuple[Window, ...], Field(strict=False), AsTuple] = ()
    reduce: Literal["auto", "mean", "max"] = "auto"
    rescale: Annotated[Rescale, BeforeValidator(_rescale_from)] = Rescale(amount=0.0)
    threshold: Threshold | None = None
    clamp: Positive | None = None
    statistics: Literal["frame", "clip"] = "frame"
    precision: Literal["float32", "pipeline"] = "float32"
    passes: Literal["pipeline", "sequential", "batched", "auto"] = "pipeline"
    micro_batch: Annotated[int, AfterValidator(Range(1, 4096))] | None = None
    share: bool = True

    @property
    def off_value(self) -> float:
        """The number that means no guidance in `scale`: 0 in the w convention, else 1."""
        return 0.0 if isinstance(self.method, Cfg) and self.method.convention == "w" else 1.0

    @property
    def is_off(self) -> bool:
        """Whether no step is guided, so that each one is the plain conditional prediction."""
        if isinstance(self.method, Multi | Dual):
            return False
        schedules = schedules_of(self.scale).values()
        return all(n == self.off_value for schedule in schedules for n in schedule.numbers())

    @property
    def needs_negative(self) -> bool:
        """Whether the method has no meaning without a negative prompt."""
        return isinstance(self.method, Dual | PerpNeg)

    def findings(self):
        if isinstance(self.scale, dict):
            yield from (
                Finding(("scale",), f"names the expert '{name}'. Use letters, digits and '_'.")
                for name in self.scale
                if not name.isidentifier()
            )
        if not isinstance(self.frames, UniformFrames):
            yield from self._frames_findings()
        yield from self._limit_findings()

    def _frames_findings(self):
        if self.frames.is_uniform():
            values = self.frames.to_dict()
            told = ", ".join(f"{k}: {v}" for k, v in values.items() if isinstance(v, float))
            what = (
                f"{values['kind']} with {told}"
                if told
                else f"{values['kind']} with every weight 1"
            )
            yield Finding(
                ("frames",),
                f"has no effect: {what} gives every frame the full scale. Write uniform.",
            )
        elif self.frames.is_off():
            yield Finding(
                ("frames",),
                "turns guidance off on every frame. Write scale: 1.0 and frames: uniform.",
            )
        elif self.is_off:
            yield Finding(
                ("frames",),
                f"has no effect: guidance.scale is {self.off_value:g} (off) on every step. "
                "Write uniform, or another scale.",
                is_error=False,
            )

    def _limit_findings(self):
        if not self.is_off:
            return
        limits = {
            "rescale": self.rescale.amount > 0,
            "threshold": self.threshold is not None,
            "clamp": self.clamp is not None,
            "windows": bool(self.windows),
        }
        for name, is_set in limits.items():
            if is_set:
                message = (
                    f"has no effect: guidance.scale is {self.off_value:g} (off) on every step."
                )
                yield Finding((name,), message, is_error=False)
