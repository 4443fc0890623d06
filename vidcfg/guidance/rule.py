"""What a guidance rule is, to a reader of YAML and to the engine.

A rule is asked four things: its branches, its deltas, the combination of the predictions, and the
rule of each step. Everything else has a default here.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import and_
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, StrictInt, StrictStr, model_serializer

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.frames import FrameWeights
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.schedule import Scale
from vidcfg.guidance.shapes import Bool, Float64
from vidcfg.guidance.windows import Window
from vidcfg.settings.base import ConfigModel, Finding, Kinds, Several

Rows = Float64[Any, "*B F"]
"""Strengths or weights of F latent frames: numpy, or tensors beside a Gram; any axes in front."""
Level = tuple[float, float]
"""(alpha, sigma) of x_t = alpha x0 + sigma eps."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """The tensors of one step, (B, F, ...) views, from which a rule makes vectors of its own.

    Args:
        predictions: by branch; one that no coefficient needs may stand for another.
        remembered: what the rule's `extra` returned under its `remembers` names the last time this
            sample ran with this model; empty at first.
        x0_scale: d x0 / d prediction at this noise level; 1 for rules in prediction space.
        grid: height and width of a frame in latent elements, None where not known (tokens).
        strength_BF, weight_BF: those of the step, of samples whose rules are on and off together.
    """

    predictions: Mapping[str, Any]
    remembered: Mapping[str, Any]
    x0_scale: float = 1.0
    grid: tuple[int, int] | None = None
    strength_BF: np.ndarray | None = None
    weight_BF: np.ndarray | None = None

    def difference(self, first: str, second: str) -> Any:
        """p_first - p_second, a new tensor."""
        return self.predictions[first] - self.predictions[second]


class Method(ConfigModel):
    """What the engine runs for one sample: a rule, several of them, or one step of a rule.

    branches     its model evaluations
    base         the branch that its combinations are written from
    isolated     branches whose evaluation changes the model, each run in a call of its own
    needs_gram   whether coefficients depend on the predictions themselves
    compares     whether it reads every branch wherever it guides, whatever the strength
    in_x0        whether the Gram that `combination` gets, and what it returns, are those of
                 predicted clean videos, and the engine converts both ways
    extras       names of the vectors that `extra` makes (beside the predictions)
    remembers    those of them that are kept for the sample's next guided step
    may_stop     whether a plan's counts are upper bounds (see `Combination.stop_BF`)
    needs_levels whether `steps` needs the noise levels of a solver of first order
    is_limited   whether rescale, threshold and clamp apply to its result
    flow_only    whether it has a meaning for flow predictions alone
    needs_negative  whether it has no meaning without a negative prompt
    changes_cond whether the conditional branch sees something else than its text
    """

    kind: ClassVar[str]
    branches: ClassVar[tuple[str, ...]] = ("cond", "uncond")
    base: ClassVar[str] = "uncond"
    isolated: ClassVar[frozenset[str]] = frozenset()
    needs_gram: ClassVar[bool] = False
    extras: ClassVar[tuple[str, ...]] = ()
    remembers: ClassVar[tuple[str, ...]] = ()
    may_stop: ClassVar[bool] = False
    needs_levels: ClassVar[bool] = False
    is_limited: ClassVar[bool] = True
    flow_only: ClassVar[bool] = False
    needs_negative: ClassVar[bool] = False
    changes_cond: ClassVar[bool] = False

    @property
    def compares(self) -> bool:
        return self.needs_gram

    @property
    def in_x0(self) -> bool:
        return getattr(self, "space", "prediction") == "x0"

    @property
    def goes_by_step(self) -> bool:
        """Whether the steps matter beside the strengths, or anything is kept between them."""
        own_steps = type(self).steps is not Method.steps
        return own_steps or bool(self.remembers) or self.may_stop

    @property
    def terms(self) -> tuple["Method", ...]:
        """The rules that are added up: this one, or those of a list."""
        return (self,)

    @cached_property
    def key(self) -> tuple:
        """What two samples share that are combined together: all but the strengths."""
        names = (
            name for name in type(self).model_fields if name not in (*STRENGTHS, "convention")
        )
        values = (getattr(self, name) for name in names)
        return (type(self), *(getattr(value, "key", value) for value in values))

    @property
    def change(self) -> "Method | Perturbation":
        """What says how the model, or what it sees, is changed: the rule itself, or this."""
        return self

    def sources(self) -> dict[str, str]:
        """The text each branch but `cond` sees: negative, empty, condition:<name>, or cond's.

        The unconditional branch sees the negative prompt, beside a branch for it the empty one.
        """
        apart = "negative" in self.branches
        seen = {"uncond": "empty" if apart else "negative", "negative": "negative"}
        others = (branch for branch in self.branches if branch != "cond")
        return {b: b if b.startswith("condition:") else seen.get(b, "cond") for b in others}

    def reads(self) -> dict[str, str]:
        """`sources`, with the prompt of a condition in place of its name: rules that differ in it
        for one branch cannot run together."""
        conditions = (c for term in self.terms for c in getattr(term, "conditions", ()))
        prompts = {f"condition:{c.name}": f"'{c.prompt}'" for c in conditions}
        return {branch: prompts.get(source, source) for branch, source in self.sources().items()}

    def tag(self, branch: str, strength_F: Rows, weight_F: Rows) -> object:
        """What the strengths of a step tell the model itself in a branch, hashable; None nothing.

        Two samples that differ in it cannot share the evaluation.
        """
        return None

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        """How far each branch moves the result, before anything that depends on predictions.

        All that the strengths and weights of a step decide: two samples with equal predictions and
        equal deltas get equal results. From `uncond` the dictionary names `cond`, from `cond` it
        does not (see `is_off`).
        """
        return {"cond": strength}

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        """The coefficients of every frame: base + sum_b delta_b (p_b - base).

        With a Gram, strengths, weights and its numbers are float64 tensors on the device of the
        predictions, which only operators and methods of tensors may touch; without, numpy.
        """
        deltas = self.deltas(strength, weight)
        return Combination(self.base, None, deltas, self.is_off(strength, weight))

    def steps(
        self,
        strength_KF: np.ndarray,
        weights_KF: np.ndarray,
        *,
        experts: tuple[str, ...] | None = None,
        levels: tuple[tuple[Level, Level], ...] | None = None,
    ) -> tuple["Method", ...]:
        """The rule of each step, for rules that are not the same on all.

        `experts` names the model of each step; `levels` are the noise levels before and after
        each step of a solver of first order, None in a plan made without a scheduler.
        """
        return (self,) * len(strength_KF)

    def is_off(self, strength: Rows, weight: Rows) -> Bool[Any, "*B F"]:
        """Where the result is `cond`, bit for bit."""
        deltas = self.deltas(strength, weight).items()
        return reduce(and_, [v == (1 if b == "cond" else 0) for b, v in deltas])

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        """The branches of which a coefficient can be non-zero on a step with these values."""
        if self.compares:
            is_off = self.is_off(strength_F, weight_F).all()
            return frozenset({"cond"} if is_off else self.branches)
        deltas = self.deltas(strength_F, weight_F)
        coefficients = deltas | {self.base: 1 - sum(deltas.values())}
        return frozenset(branch for branch, values in coefficients.items() if np.any(values != 0))

    def extra(self, vectors: Vectors) -> dict[str, Any]:
        """The rule's own vectors of this step, by the names in `extras`; none are overwritten.

        Not asked of a rule without `extras`.
        """
        raise NotImplementedError

    def coefficients(
        self,
        gram: Gram | None,
        strength_BF: Rows,
        weight_BF: Rows,
        x0: tuple[float, float] | None = None,
    ) -> Combination:
        """`combination` for predictions, whatever the rule's space.

        `x0` is (a, b) of x0 = a x_t + b p; a rule in x0 space gets a Gram that holds x_t.
        """
        if not self.in_x0:
            return self.combination(gram, strength_BF, weight_BF)
        return self.combination(gram.in_x0(*x0), strength_BF, weight_BF).from_x0(*x0)


def ratio(above: Any, below: Any, otherwise: float) -> Any:
    """above / below, and `otherwise` where `below` is not positive, of numbers from a Gram."""
    has_ratio = below > 0
    return (above / below.where(has_ratio, 1.0)).where(has_ratio, otherwise)


class StepOf(Method):
    """One step of a rule that is not the same on all; what it does not say is the rule's."""

    rule: Method

    @property
    def kind(self) -> str:
        return self.rule.kind

    @property
    def branches(self) -> tuple[str, ...]:
        return self.rule.branches

    def sources(self) -> dict[str, str]:
        return self.rule.sources()

    def tag(self, branch: str, strength_F: Rows, weight_F: Rows) -> object:
        return self.rule.tag(branch, strength_F, weight_F)

    def is_off(self, strength: Rows, weight: Rows) -> Any:
        return self.rule.is_off(strength, weight)


STRENGTHS = ("scale", "frames", "windows")
"""What says how strong a rule is, and is the rule's own in a list."""


class Rule(Method, Kinds):
    """One of the kinds of `guidance.method`.

    In a list of rules `scale`, `frames` and `windows` replace those of `guidance`. A kind tells

    can_be_off      whether a scale of 1 (0 in the w convention) makes the rule do nothing
    follows_cond    whether a branch is made from cond's result, so that no evaluation is shared
    solvers         the values of sampling.scheduler that it needs; empty for any
    highest         a scale that is too much for it, and what it takes instead
    """

    kinds: ClassVar[dict[str, type["Rule"]]] = {}
    shapes: ClassVar[str] = "cfg or a mapping such as {kind: dual, negative_scale: 2.0}."
    can_be_off: ClassVar[bool] = True
    follows_cond: ClassVar[bool] = False
    solvers: ClassVar[tuple[str, ...]] = ()
    highest: ClassVar[tuple[float, str]] = (math.inf, "")

    scale: Scale | None = Field(None, description="a scale of this rule's own, or null")
    frames: FrameWeights | None = Field(
        None, description="frame weights of this rule's own, or null"
    )
    windows: Several[Window] | None = None

    @property
    def off_value(self) -> float:
        """The number that means off in `scale`: 0 in the w convention, else 1."""
        return 0.0 if getattr(self, "convention", "scale") == "w" else 1.0

    @property
    def own(self) -> tuple[str, ...]:
        """Which of scale, frames and windows this rule has itself."""
        return tuple(name for name in STRENGTHS if getattr(self, name) is not None)

    def check_run(self, num_steps: int) -> Iterator[Finding]:
        """What cannot work in a run of so many steps."""
        return iter(())

    def flaw(self) -> str | None:
        """Why the class is no rule, by what it gives without guidance and at a scale of 1."""
        one_F, none_F = np.ones(2), np.zeros(2)
        given = self.deltas(one_F, none_F)
        if not isinstance(given, Mapping):
            return f"gives deltas that are {given!r}. Return a dictionary, by branch."
        others = [branch for branch in self.branches if branch != self.base]
        cls = type(self)
        is_plain = cls.combination is Method.combination and cls.steps is Method.steps
        for branch, values in given.items():
            if is_plain and branch not in others:
                names = ", ".join(others)
                return f"gives a delta of {branch}, but it moves {self.base} towards {names}."
            if np.shape(values) != one_F.shape:
                return f"gives a delta of shape {np.shape(values)}. Give one for each strength."
        if not self.is_off(one_F, none_F).all():
            return "changes a frame of strength 1 and weight 0, which has to stay cond."
        if self.can_be_off and not self.is_off(one_F, one_F).all():
            return "acts at a scale of 1, which its class calls off. Write can_be_off = False."
        return None

    @model_serializer(mode="wrap")
    def _written(self, handler) -> dict[str, Any]:
        written = {k: v for k, v in handler(self).items() if k not in STRENGTHS or v is not None}
        return {"kind": self.kind, **written}


rule = Rule.named

Space = Literal["x0", "prediction"]
"""Where inner products are taken: of predicted clean videos, or of what the model predicts."""
Layers = Several[StrictInt | StrictStr]
"""Numbers or names of transformer blocks; empty for the family's own."""


class EitherConvention(Rule):
    """A rule whose numbers may be written as w = s - 1, as some papers and peers do."""

    convention: Literal["scale", "w"] = "scale"


class AgainstUncond(EitherConvention):
    """A rule of `cond` and `uncond`, which sees the negative prompt, with one strength."""


class Compared(AgainstUncond):
    """A rule whose coefficients come from comparing both predictions, in one of two spaces."""

    needs_gram = True

    space: Space = "prediction"


class WithChange(Rule):
    """A rule of `cond` and of a pass of its own: `change.branch`, in which something is changed.

    Equal names of that branch mean equal changes, so that samples of a batch, and terms of a
    composition, share an evaluation exactly where they may.
    """

    @property
    def branches(self) -> tuple[str, ...]:
        return ("cond", self.change.branch)

    @property
    def isolated(self) -> frozenset[str]:
        return frozenset({self.change.branch})


class AwayFrom(WithChange):
    """Move a worse prediction towards, and past, the plain one, frame by frame.

        guided_f = cond_f + (strength_f - 1) * (cond_f - perturbed_f)

    `change` says how the model, or its input, is changed for the perturbed pass, which sees all
    that `cond` sees, the positive prompt included, with or without other rules beside it. A
    strength of 1 returns `cond` bit for bit (off) and runs no perturbed pass. w = strength - 1 is
    what peers call pag_scale, slg scale, stg_scale.
    """

    base = "cond"

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {self.change.branch: 1 - strength}

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        needed = super().required(strength_F, weight_F)
        return needed | {"cond"} if self.follows_cond else needed


class PerturbedLayers(AwayFrom, EitherConvention):
    """A rule that changes some layers of the model for a pass of its own."""

    layers: Layers = Field((), description="the family's")
