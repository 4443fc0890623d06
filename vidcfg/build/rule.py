"""`vidcfg.Guidance`, as written, to the engine's rule. After this step no setting is read."""

from typing import Any

from vidcfg.config import Guidance
from vidcfg.guidance.frame_weights import FRAME_WEIGHTS, FrameWindow
from vidcfg.guidance.limits import Clamp, Rescale, Threshold
from vidcfg.guidance.methods import METHODS, Method
from vidcfg.guidance.rule import Rule
from vidcfg.guidance.schedules import SCHEDULES, from_w

_ENGINE_NAMES = {"values": "values_K"}


def build_rule(guidance: Guidance) -> Rule:
    """The engine's form of one guidance setting."""
    convention = getattr(guidance.method, "convention", "scale")
    scale = guidance.scale
    if isinstance(scale, dict):
        scale = {name: _schedule(spec, convention) for name, spec in scale.items()}
    else:
        scale = _schedule(scale, convention)
    threshold = guidance.threshold
    return Rule(
        scale=scale,
        method=_method(guidance.method),
        frames=FRAME_WEIGHTS[guidance.frames.kind](**_fields(guidance.frames)),
        windows=tuple(
            FrameWindow(*window.frames, window.start, window.stop) for window in guidance.windows
        ),
        reducer=None if guidance.reduce == "auto" else guidance.reduce,
        rescale=Rescale(**_fields(guidance.rescale)) if guidance.rescale.amount else None,
        threshold=None if threshold is None else Threshold(**_fields(threshold)),
        clamp=None if guidance.clamp is None else Clamp(guidance.clamp),
        statistics=guidance.statistics,
        precision=guidance.precision,
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
    if spec.kind == "cfg":
        return METHODS["cfg"]()
    if spec.kind == "multi":
        scales = tuple((condition.name, condition.scale) for condition in spec.conditions)
        return METHODS["multi"](scales=scales)
    return METHODS[spec.kind](**_fields(spec))
