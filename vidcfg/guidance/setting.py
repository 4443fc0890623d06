"""`guidance`: everything that says how strongly which frame follows its prompt at which step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_serializer,
)

from vidcfg.guidance.composite import Composite
from vidcfg.guidance.frames import FrameWeights, Uniform
from vidcfg.guidance.limits import Rescale, RescaleSetting, Threshold
from vidcfg.guidance.rule import STRENGTHS, Method, Rule
from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.schedule import Scale, Schedule
from vidcfg.guidance.surface import Surface, Term
from vidcfg.guidance.windows import Window
from vidcfg.settings.base import AtLeastOne, ConfigModel, Finding, Positive, Range, Several
from vidcfg.settings.document import load_document, validate

if TYPE_CHECKING:
    from torch import Tensor


def _shape_of(value: Any) -> str:
    """`list` for several rules, `one` for all else."""
    return "list" if isinstance(value, list | tuple | Composite) else "one"


def _as_rules(value: Any) -> Any:
    return value.terms if isinstance(value, Composite) else value


def _together(rules: tuple[Rule, ...]) -> Composite:
    # Validated and not made: the place of an error stays that of the list.
    return Composite.model_validate({"rules": rules})


Rules = Annotated[
    Annotated[Rule, Tag("one")]
    | Annotated[
        AtLeastOne[Rule], BeforeValidator(_as_rules), AfterValidator(_together), Tag("list")
    ],
    Discriminator(_shape_of),
]
"""The rule, or a list of rules that are added up; a name alone is enough where every other value
has a default."""


Words = str | Mapping[str, Any]
"""A kind by its name alone, or a mapping with its values."""
Numbers = Union[NDArray[Any], "Tensor"]
Weights = Sequence[float] | Numbers | Callable[[int], float]
"""A weight for each pixel frame, or what gives it for a frame."""


class Guidance(ConfigModel):
    """How to guide: `Guidance(6.0, frames={"kind": "decay", "end": 0.2})`, in the words of YAML.

        strength[k, f] = 1 + (scale_k - 1) * weight_f          1 = off

    Args:
        scale: strength at full weight: a number, one per step, a schedule such as
            {"kind": "cosine", "start": 10.0, "end": 2.0}, a matrix (steps, latent frames) as
            rows, array, tensor or .npy file, or one of these per expert by name.
        method: a rule such as "cfg" or {"kind": "apg", ...}, or a list of rules, added up.
        frames: weight of each frame: "uniform", one such as {"kind": "decay", "end": 0.2}, a
            number for each frame, or a function of the frame.
        windows: frames that are guided in a part of the steps:
            {"frames": [9, 16], "from": 0.0, "to": 0.6}.
        reduce: how a latent frame takes its weight from its pixel frames: "mean", "max", or
            "auto", which is the largest for keyframes and the mean for others.
        rescale: how far spread is pulled back to that of the prompt's prediction, 0 (off) to 1.
        threshold: dynamic thresholding of large values; None is off.
        clamp: largest value in standard deviations; None is off.
        statistics: "frame" or "clip": over what rules and limits take norms and spreads.
        precision: combine in the dtype of the stock "pipeline", or in "float32".
        passes: one call of the model for each branch ("sequential"), one for all ("batched"), as
            the stock "pipeline" does, or whichever is faster ("auto").
        micro_batch: the most rows of a call; None has no limit.
        share: evaluate rows that are equal once.

    Raises:
        ConfigError: naming each value that is not allowed, or has no effect beside the others.

    docs/guidance.md has every rule, schedule and frame weighting.
    """

    scale: Scale = Field(description="a number such as 6.0, or a schedule")
    method: Rules = Cfg()
    frames: FrameWeights = Uniform()
    windows: Several[Window] = ()
    reduce: Literal["auto", "mean", "max"] = "auto"
    rescale: RescaleSetting = Rescale(amount=0.0)
    threshold: Threshold | None = None
    clamp: Positive | None = None
    statistics: Literal["frame", "clip"] = "frame"
    precision: Literal["pipeline", "float32"] = "pipeline"
    passes: Literal["pipeline", "sequential", "batched", "auto"] = "pipeline"
    micro_batch: Annotated[int, Range(1, 4096)] | None = None
    share: bool = True

    if TYPE_CHECKING:  # what may be written, which fields then hold as settings

        def __init__(
            self,
            scale: "float | Sequence[float | Sequence[float]] | Numbers | Words | Schedule",
            *,
            method: "Words | Rule | Sequence[Words | Rule]" = "cfg",
            frames: "Words | Weights | FrameWeights" = "uniform",
            windows: Sequence[Mapping[str, Any] | Window] = (),
            reduce: Literal["auto", "mean", "max"] = "auto",
            rescale: float | Mapping[str, Any] | Rescale = 0.0,
            threshold: Mapping[str, Any] | Threshold | None = None,
            clamp: float | None = None,
            statistics: Literal["frame", "clip"] = "frame",
            precision: Literal["pipeline", "float32"] = "pipeline",
            passes: Literal["pipeline", "sequential", "batched", "auto"] = "pipeline",
            micro_batch: int | None = None,
            share: bool = True,
        ) -> None: ...

    @classmethod
    def of(cls, value: Any) -> "Guidance":
        """The setting that a number or schedule, a mapping of its words, or a file stands for.

        A file (or preset) is a configuration, of which `guidance` is taken.

        Raises:
            ConfigError: as for a setting that is made by its class or by a command.
        """
        if isinstance(value, str | Path):
            return validate(load_document(value), GuidanceOfFile).guidance
        if isinstance(value, Mapping):
            return cls(**{str(word): part for word, part in value.items()})
        return value if isinstance(value, cls) else cls(scale=value)

    @field_serializer("method")
    def _written_method(self, method: Method) -> Any:
        is_list = isinstance(method, Composite)
        return [rule.to_dict() for rule in method.terms] if is_list else method.to_dict()

    @property
    def kind(self) -> str:
        """The names of the rules, such as cfg or cfg+stg."""
        return self.method.kind

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """Every rule with the scale, frames and windows that are in force for it."""
        found = []
        for i, rule in enumerate(self.method.terms):
            above = ("method", i) if isinstance(self.method, Composite) else ("method",)
            at = {name: (*above, name) if name in rule.own else (name,) for name in STRENGTHS}
            values = {n: getattr(self if at[n] == (n,) else rule, n) for n in STRENGTHS}
            scale = values["scale"]
            schedules = scale.values() if isinstance(scale, dict) else (scale,)
            numbers = tuple(number for each in schedules for number in each.numbers())
            is_off = rule.can_be_off and set(numbers) == {rule.off_value}
            where = {"reduce": self.reduce, "above": above, "at": at}
            found.append(Term(rule, **values, **where, numbers=numbers, is_off=is_off))
        return tuple(found)

    @cached_property
    def is_off(self) -> bool:
        """Whether no step is guided, so that each one is the plain conditional prediction."""
        return all(term.is_off for term in self.terms)

    def surface(self, **run: Any) -> Surface:
        """The surface of the rule, or of its first term, by the arguments of `Term.surface`."""
        return self.terms[0].surface(**run)

    def term_names(self) -> tuple[str, ...]:
        """The name of every term; one that is used twice is numbered."""
        kinds = [rule.kind for rule in self.method.terms]
        return tuple(
            kind if kind not in kinds[:i] else f"{kind}#{kinds[:i].count(kind) + 1}"
            for i, kind in enumerate(kinds)
        )

    def order(self) -> tuple[str, ...]:
        """The operations in the order in which they are applied.

        For several terms the first entry is their formula: cond + (cfg - cond) + (stg - cond).
        """
        method = self.method.kind
        if len(self.method.terms) > 1:
            method = f"cond{''.join(f' + ({name} - cond)' for name in self.term_names())}"
        is_on = not self.rescale.is_off, self.threshold is not None, self.clamp is not None
        return (f"method:{method}", *compress(("rescale", "threshold", "clamp"), is_on))

    def without_frames(self) -> "Guidance":
        """The same with the full scale on every frame, for a clip that has one."""
        none = {"frames": None, "windows": None}
        bare = tuple(rule.model_copy(update=none) for rule in self.method.terms)
        method = Composite(bare) if isinstance(self.method, Composite) else bare[0]
        return self.model_copy(update={"frames": Uniform(), "windows": (), "method": method})

    def findings(self) -> Iterator[Finding]:
        # Strengths that stand in the wrong place.
        if not isinstance(self.method, Composite):
            for name in self.method.own:
                what = f"belongs to a rule in a list. Write it as guidance.{name}."
                yield Finding(("method", name), what)
        elif all("scale" in rule.own for rule in self.method.terms):
            what = "has no effect: every rule of the list has a scale of its own."
            yield Finding(("scale",), what, is_error=False)

        # Scales, each where it is written.
        for path, term in {term.at["scale"]: term for term in self.terms}.items():
            for name in term.scale if isinstance(term.scale, dict) else ():
                if not name.isidentifier():
                    what = f"names the expert '{name}'. Use letters, digits and '_'."
                    yield Finding(path, what)
        for term in self.terms:
            if flaw := term.rule.flaw():
                yield Finding(term.above, f"{term.rule.kind} {flaw}")
            top, (highest, instead) = max(term.numbers), term.rule.highest
            if top > highest:
                what = f"reaches {top:g}, but {instead}."
                yield Finding(term.at["scale"], what, is_error=False)

        # What has no effect beside the others.
        for term in {term.at["frames"]: term for term in self.terms}.values():
            if not isinstance(term.frames, Uniform):
                yield from self._frames_findings(term)
        if self.is_off:
            _, *limits = self.order()
            for name in (*limits, *(["windows"] if self.windows else [])):
                yield Finding((name,), _off_words(self.terms[0]), is_error=False)

    def _frames_findings(self, term: Term) -> Iterator[Finding]:
        path, frames = term.at["frames"], term.frames
        if frames.is_uniform:
            values = frames.to_dict().items()
            told = ", ".join(f"{k}: {v}" for k, v in values if isinstance(v, float))
            what = f"{frames.kind} with {told or 'every weight 1'}"
            yield Finding(
                path, f"has no effect: {what} gives every frame the full scale. Write uniform."
            )
        elif frames.is_off:
            yield Finding(
                path, "turns guidance off on every frame. Write scale: 1.0 and frames: uniform."
            )
        elif term.is_off if "frames" in term.rule.own else self.is_off:
            yield Finding(path, f"{_off_words(term)} Write uniform, or another scale.", False)

    def check_run(
        self, *, num_steps: int, num_frames: int, fps: float | int | None = None
    ) -> Iterator[Finding]:
        """What cannot work, or has no effect, for `num_frames` pixel frames in `num_steps` steps.

        Paths are relative to `guidance`. The windows of a clip of one frame are not looked at.
        """
        seen = {}
        for term in self.terms:
            for found in term.check_run(num_steps, num_frames, fps):
                if num_frames > 1 or found.path[-3:-2] != ("windows",):
                    seen[found.path] = found
            idle = term.frames.no_effect(num_frames, fps)
            if idle:
                seen[term.at["frames"]] = Finding(term.at["frames"], idle)
        yield from seen.values()


Written = Guidance | float | Mapping[str, Any] | str | Path
"""What `Guidance.of` takes for a setting."""


class GuidanceOfFile(ConfigModel):
    """A configuration of which nothing but `guidance` matters."""

    model_config = ConfigDict(extra="ignore")

    guidance: Guidance = Field(description="scale and what goes with it")


def _off_words(term: Term) -> str:
    where = ".".join(map(str, ("guidance", *term.at["scale"])))
    return f"has no effect: {where} is {term.rule.off_value:g} (off) on every step."
