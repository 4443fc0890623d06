"""What every rule of `guidance.method` shares: one of several may have its own strengths."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_serializer

from vidcfg.guidance.setting_frames import Frames, UniformFrames, Window
from vidcfg.guidance.setting_schedules import Scale, schedules_of
from vidcfg.settings.base import AsTuple, ConfigModel
from vidcfg.settings.errors import Path

_OWN = ("scale", "frames", "windows")


class TermModel(ConfigModel):
    """A rule. In a list of rules `scale`, `frames` and `windows` replace those of `guidance`.

    `can_be_off` tells whether a scale of 1 (0 in the w convention) makes the rule do nothing;
    `needs_negative` whether it has no meaning without a negative prompt.
    """

    can_be_off: ClassVar[bool] = True
    needs_negative: ClassVar[bool] = False

    scale: Scale | None = Field(None, description="a scale of this rule's own, or null")
    frames: Frames | None = Field(None, description="frame weights of this rule's own, or null")
    windows: Annotated[tuple[Window, ...] | None, Field(strict=False), AsTuple] = None

    @property
    def off_value(self) -> float:
        """The number that means off in `scale`: 0 in the w convention, else 1."""
        return 0.0 if getattr(self, "convention", "scale") == "w" else 1.0

    @property
    def own(self) -> tuple[str, ...]:
        """Which of scale, frames and windows this rule has itself."""
        return tuple(name for name in _OWN if getattr(self, name) is not None)

    @model_serializer(mode="wrap")
    def _written(self, handler) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if k not in _OWN or v is not None}


@dataclass(frozen=True)
class Term:
    """One rule with the strengths that are in force for it; `above` is where its own stand."""

    method: TermModel
    scale: Any
    frames: ConfigModel
    windows: tuple[Window, ...]
    above: Path

    def path(self, name: str) -> Path:
        """Where `scale`, `frames` or `windows` of this rule is written, below `guidance`."""
        return (*self.above, name) if name in self.method.own else (name,)

    @property
    def is_off(self) -> bool:
        """Whether no step is guided by this rule."""
        if not self.method.can_be_off:
            return False
        numbers = [n for s in schedules_of(self.scale).values() for n in s.numbers()]
        return all(number == self.method.off_value for number in numbers)

    @property
    def has_frames(self) -> bool:
        return not isinstance(self.frames, UniformFrames)
