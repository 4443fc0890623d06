"""`guidance.method`: which rule combines the predictions."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from vidcfg.guidance.setting_rules_perturbed import (
    Autoguidance,
    Cads,
    Classifier,
    Embedded,
    Pag,
    Sag,
    Seg,
    Slg,
    Stg,
)
from vidcfg.guidance.setting_terms import TermModel
from vidcfg.settings.base import AsTuple, ConfigModel, Finding, Number, Positive, Range, refuse


class Cfg(TermModel):
    """uncond + s (cond - uncond). `convention: w` reads the schedule's numbers as w = s - 1."""

    kind: Literal["cfg"] = "cfg"
    convention: Literal["scale", "w"] = "scale"


class Dual(TermModel):
    """uncond + s (cond - uncond) - negative_scale (negative - uncond): three passes."""

    can_be_off: ClassVar[bool] = False
    needs_negative: ClassVar[bool] = True
    kind: Literal["dual"] = "dual"
    negative_scale: Number = 2.0


class Condition(ConfigModel):
    """One more prompt with a scale of its own."""

    name: Annotated[str, Field(min_length=1)] = Field(description="a short name for the trace")
    prompt: Annotated[str, Field(min_length=1)] = Field(description="text")
    scale: Number = Field(description="a number, 0 = off")


class Multi(TermModel):
    """uncond + sum_i scale_i (condition_i - uncond): one pass more for each condition."""

    can_be_off: ClassVar[bool] = False
    kind: Literal["multi"] = "multi"
    conditions: Annotated[tuple[Condition, ...], Field(strict=False, min_length=1), AsTuple] = (
        Field(description="a list such as [{name: sky, prompt: a red sky, scale: 2.0}]")
    )

    def findings(self):
        names = [condition.name for condition in self.conditions]
        for i, name in enumerate(names):
            if name in names[:i]:
                yield Finding(
                    ("conditions", i, "name"),
                    f"is '{name}', like that of condition {names.index(name)}. Name them apart.",
                )


class PerpNeg(TermModel):
    """Like dual, with the part of the negative direction that is perpendicular to the prompt's."""

    needs_negative: ClassVar[bool] = True
    kind: Literal["perp_neg"] = "perp_neg"
    negative_scale: Number = 1.0


NotNegative = Annotated[float, AfterValidator(Range(0))]
Space = Literal["x0", "prediction"]
"""Where inner products are taken: of predicted clean videos, or of what the model predicts."""
Convention = Literal["scale", "w"]


class Apg(TermModel):
    """cond + (s - 1) times cond - uncond, capped in size and without its part along cond.

    eta 1, norm null and momentum 0 are plain guidance.
    """

    kind: Literal["apg"] = "apg"
    convention: Convention = "scale"
    eta: Number = 0.0
    norm: Positive | None = None
    momentum: Annotated[float, AfterValidator(Range(-1, 1))] = 0.0
    space: Space = "x0"


class ZeroStar(TermModel):
    """cfg with uncond scaled to fit cond; nothing moves on the first `zero_init_steps` steps."""

    kind: Literal["zero_star"] = "zero_star"
    convention: Convention = "scale"
    zero_init_steps: Annotated[int, AfterValidator(Range(0, 1000))] = 1
    space: Space = "prediction"


class Tcfg(TermModel):
    """cfg with uncond projected onto the main direction of cond and uncond."""

    kind: Literal["tcfg"] = "tcfg"
    convention: Convention = "scale"
    space: Space = "prediction"


class Mambo(TermModel):
    """cfg with s - 1 damped by exp(-alpha ||cond - uncond|| / ||uncond||). alpha 0 is cfg."""

    kind: Literal["mambo"] = "mambo"
    convention: Convention = "scale"
    alpha: NotNegative = 8.0
    space: Space = "prediction"


class Renorm(TermModel):
    """cfg, scaled down where its norm is above `cap` times that of cond."""

    kind: Literal["renorm"] = "renorm"
    convention: Convention = "scale"
    cap: Positive = 1.0
    space: Space = "prediction"


class Freq(TermModel):
    """cfg with gains of its own for coarse and fine parts of cond - uncond. 1 is plain cfg."""

    kind: Literal["freq"] = "freq"
    convention: Convention = "scale"
    space_low: Number = 1.0
    space_high: Number = 1.0
    time_low: Number = 1.0
    time_high: Number = 1.0
    space_cutoff: Annotated[float, AfterValidator(Range(0, 1, above=True))] = 0.25
    time_cutoff: Annotated[float, AfterValidator(Range(0, 1, above=True))] = 0.25

    def findings(self):
        for axis in ("space", "time"):
            gains = {getattr(self, f"{axis}_low"), getattr(self, f"{axis}_high")}
            cutoff = f"{axis}_cutoff"
            if gains == {1.0} and getattr(self, cutoff) != type(self).model_fields[cutoff].default:
                what = f"has no effect: {axis}_low and {axis}_high are 1."
                yield Finding((cutoff,), what, is_error=False)


class CfgPp(TermModel):
    """CFG++: x0 of uncond + s (cond - uncond), noise of uncond. s from 0 to 1; Euler and DDIM."""

    can_be_off: ClassVar[bool] = False
    kind: Literal["cfg_pp"] = "cfg_pp"


class AdaptiveStop(TermModel):
    """cfg until the cosine of cond and uncond passes `cosine`, then cond alone. 1 never stops."""

    kind: Literal["adaptive_stop"] = "adaptive_stop"
    convention: Convention = "scale"
    cosine: Annotated[float, AfterValidator(Range(-1, 1))] = 0.99
    space: Space = "prediction"


class DeltaReuse(TermModel):
    """cfg that evaluates uncond on every n-th step and keeps cond - uncond in between."""

    kind: Literal["delta_reuse"] = "delta_reuse"
    convention: Convention = "scale"
    every: Annotated[int, AfterValidator(Range(1, 1000))] = 2


def _method_from(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    if not isinstance(value, dict | ConfigModel):
        raise refuse("but must be cfg or a mapping such as {kind: dual, negative_scale: 2.0}.")
    return value


One = Annotated[
    Cfg
    | Dual
    | Multi
    | PerpNeg
    | Apg
    | ZeroStar
    | Tcfg
    | Mambo
    | Renorm
    | Freq
    | CfgPp
    | AdaptiveStop
    | DeltaReuse
    | Pag
    | Slg
    | Stg
    | Seg
    | Sag
    | Autoguidance
    | Cads
    | Embedded
    | Classifier,
    Field(discriminator="kind"),
    BeforeValidator(_method_from),
]


def _shape_of(value: Any) -> str:
    """`list` for several rules, `one` for all else."""
    return "list" if isinstance(value, list | tuple) else "one"


Method = Annotated[
    Annotated[One, Tag("one")]
    | Annotated[tuple[One, ...], Field(strict=False, min_length=1), AsTuple, Tag("list")],
    Discriminator(_shape_of),
]
"""The rule, or a list of rules that are added up; a name alone is enough where every other value
has a default."""
