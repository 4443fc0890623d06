"""`guidance`: everything that says how strongly which frame follows its prompt at which step."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vidcfg.guidance.setting_frames import Frames, UniformFrames, Window
from vidcfg.guidance.setting_rules import Cfg, Method
from vidcfg.guidance.setting_schedules import Scale, schedules_of
from vidcfg.guidance.setting_terms import Term, TermModel
from vidcfg.settings.base import AsTuple, ConfigModel, Finding, Fraction, Positive, Range, refuse
from vidcfg.settings.validation import number_advice


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
    def methods(self) -> tuple[TermModel, ...]:
        """The rules, in the order in which they are added up."""
        return self.method if isinstance(self.method, tuple) else (self.method,)

    @property
    def kind(self) -> str:
        """The names of the rules, such as cfg or cfg+stg."""
        return "+".join(method.kind for method in self.methods)

    @property
    def terms(self) -> tuple[Term, ...]:
        """Every rule with the scale, frames and windows that are in force for it."""
        in_list = isinstance(self.method, tuple)
        return tuple(
            Term(
                method,
                self.scale if method.scale is None else method.scale,
                self.frames if method.frames is None else method.frames,
                self.windows if method.windows is None else method.windows,
                ("method", i) if in_list else ("method",),
            )
            for i, method in enumerate(self.methods)
        )

    @property
    def off_value(self) -> float:
        """The number that means no guidance in `scale`: 0 in the w convention, else 1."""
        return self.methods[0].off_value

    @property
    def is_off(self) -> bool:
        """Whether no step is guided, so that each one is the plain conditional prediction."""
        return all(term.is_off for term in self.terms)

    @property
    def needs_negative(self) -> bool:
        """Whether the method has no meaning without a negative prompt."""
        return any(method.needs_negative for method in self.methods)

    def findings(self):
        if not isinstance(self.method, tuple):
            for name in self.method.own:
                what = f"belongs to a rule in a list. Write it as guidance.{name}."
                yield Finding(("method", name), what)
        elif all("scale" in method.own for method in self.method):
            what = "has no effect: every rule of the list has a scale of its own."
            yield Finding(("scale",), what, is_error=False)
        for path, scale in {term.path("scale"): term.scale for term in self.terms}.items():
            if isinstance(scale, dict):
                yield from (
                    Finding(path, f"names the expert '{name}'. Use letters, digits and '_'.")
                    for name in scale
                    if not name.isidentifier()
                )
        for term in self.terms:
            top = max(n for s in schedules_of(term.scale).values() for n in s.numbers())
            if term.method.kind == "cfg_pp" and top > 1:
                what = f"reaches {top:g}, but CFG++ takes a lambda from 0 to 1."
                yield Finding(term.path("scale"), what, is_error=False)
        for term in {term.path("frames"): term for term in self.terms}.values():
            if term.has_frames:
                yield from self._frames_findings(term)
        yield from self._limit_findings()

    def _frames_findings(self, term: Term):
        path = term.path("frames")
        if term.frames.is_uniform():
            values = term.frames.to_dict()
            told = ", ".join(f"{k}: {v}" for k, v in values.items() if isinstance(v, float))
            what = (
                f"{values['kind']} with {told}"
                if told
                else f"{values['kind']} with every weight 1"
            )
            yield Finding(
                path,
                f"has no effect: {what} gives every frame the full scale. Write uniform.",
            )
        elif term.frames.is_off():
            yield Finding(
                path,
                "turns guidance off on every frame. Write scale: 1.0 and frames: uniform.",
            )
        elif term.is_off if "frames" in term.method.own else self.is_off:
            yield Finding(path, f"{self._off_words(term)} Write uniform, or another scale.", False)

    def _off_words(self, term: Term) -> str:
        where = ".".join(map(str, ("guidance", *term.path("scale"))))
        return f"has no effect: {where} is {term.method.off_value:g} (off) on every step."

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
                yield Finding((name,), self._off_words(self.terms[0]), is_error=False)
