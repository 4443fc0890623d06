"""`vidcfg.Guidance`, as written, to the engine's rule. After this step no setting is read."""

import inspect
from typing import Any

from vidcfg.guidance.frame_weights import FRAME_WEIGHTS, FrameWindow
from vidcfg.guidance.limits import Clamp, Rescale, Threshold
from vidcfg.guidance.rule import Rule, Term
from vidcfg.guidance.rules import METHODS, Composite, Method
from vidcfg.guidance.schedules import SCHEDULES, from_w
from vidcfg.guidance.setting import Guidance

_ENGINE_NAMES = {"values": "values_K"}


def build_rule(guidance: Guidance) -> Rule:
    """The engine's form of one guidance setting."""
    reducer = None if guidance.reduce == "auto" else guidance.reduce
    first, *others = (_term(term, reducer) for term in guidance.terms)
    methods = tuple(_method(method) for method in guidance.methods)
    threshold = guidance.threshold
    return Rule(
        scale=first.scale,
        method=methods[0] if len(methods) == 1 else Composite(methods),
        frames=first.frames,
        windows=first.windows,
        reducer=reducer,
        rescale=Rescale(**_fields(guidance.rescale)) if guidance.rescale.amount else None,
        threshold=None if threshold is None else Threshold(**_fields(threshold)),
        clamp=None if guidance.clamp is None else Clamp(guidance.clamp),
        statistics=guidance.statistics,
        precision=guidance.precision,
        more=tuple(others),
    )


def _term(term: Any, reducer: str | None) -> Term:
    """The strengths of one rule; numbers of a schedule are read in the rule's convention."""
    convention = getattr(term.method, "convention", "scale")
    if isinstance(term.scale, dict):
        scale = {name: _schedule(spec, convention) for name, spec in term.scale.items()}
    else:
        scale = _schedule(term.scale, convention)
    return Term(
        scale=scale,
        frames=FRAME_WEIGHTS[term.frames.kind](**_fields(term.frames)),
        windows=tuple(
            FrameWindow(*window.frames, window.start, window.stop) for window in term.windows
        ),
        reducer=reducer,
    )


def _fields(spec: Any) -> dict[str, Any]:
    """The fields of a setting but its `kind`, in the engine's names."""
    names = [name for name in type(spec).model_fields if name != "kind"]
    return {_ENGINE_NAMES.get(name, name): getattr(spec, name) for name in names}


def _schedule(spec: Any, convention: str) -> Any:
    """The schedule of scales; numbers written as w = s - 1 become scales."""
    schedule = SCHEDULES[spec.kind](**_fields(spec))
    return from_w(schedule) if convention == "w" else schedule


def _method(spec: Any) -> Method:
    """The engine's rule of one setting, which has the fields of the setting that it names."""
    if spec.kind == "multi":
        scales = tuple((condition.name, condition.scale) for condition in spec.conditions)
        return METHODS["multi"](scales=scales)
    made = METHODS[spec.kind]
    wanted = [n for n in inspect.signature(made).parameters if n in type(spec).model_fields]
    return made(**{name: getattr(spec, name) for name in wanted})
