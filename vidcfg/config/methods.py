"""`guidance.method`: which rule combines the predictions."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vidcfg.config.base import AsTuple, ConfigModel, Finding, Number, refuse


class Cfg(ConfigModel):
    """uncond + s (cond - uncond). `convention: w` reads the schedule's numbers as w = s - 1."""

    kind: Literal["cfg"] = "cfg"
    convention: Literal["scale", "w"] = "scale"


class Dual(ConfigModel):
    """uncond + s (cond - uncond) - negative_scale (negative - uncond): three passes."""

    kind: Literal["dual"] = "dual"
    negative_scale: Number = 2.0


class Condition(ConfigModel):
    """One more prompt with a scale of its own."""

    name: Annotated[str, Field(min_length=1)] = Field(description="a short name for the trace")
    prompt: Annotated[str, Field(min_length=1)] = Field(description="text")
    scale: Number = Field(description="a number, 0 = off")


class Multi(ConfigModel):
    """uncond + sum_i scale_i (condition_i - uncond): one pass more for each condition."""

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


class PerpNeg(ConfigModel):
    """Like dual, with the part of the negative direction that is perpendicular to the prompt's."""

    kind: Literal["perp_neg"] = "perp_neg"
    negative_scale: Number = 1.0


def _method_from(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    if not isinstance(value, dict | ConfigModel):
        raise refuse("but must be cfg or a mapping such as {kind: dual, negative_scale: 2.0}.")
    return value


Method = Annotated[
    Cfg | Dual | Multi | PerpNeg,
    Field(discriminator="kind"),
    BeforeValidator(_method_from),
]
"""The rule; its name alone is enough where every other value has a default."""
