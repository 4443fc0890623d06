"""`vidcfg.guide`: put frame-aware guidance into a pipeline, and take it out again."""

import functools
import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.trace import Trace
from vidcfg.pipelines.changes.classifier import LogProb
from vidcfg.pipelines.families import Family, family_of
from vidcfg.pipelines.installed import guided_forwards, guider_off
from vidcfg.pipelines.session import Session
from vidcfg.pipelines.texts import BranchTexts, negative_inputs


@contextmanager
def guide(
    pipe: Any,
    guidance: Guidance | float | Sequence[Guidance | float],
    *,
    negative_prompt: str | list[str] = "",
    fps: float | int | None = None,
    classifier: LogProb | None = None,
    **negative: Tensor,
) -> Iterator[Trace]:
    """Guide every call of `pipe` inside the `with` block, frame by frame and step by step.

        with vidcfg.guide(pipe, vidcfg.Guidance(scale=6.0), negative_prompt="blurry") as trace:
            video = pipe(prompt, num_frames=81, guidance_scale=1.0).frames

    Args:
        pipe: a pipeline of a supported family (`vidcfg families`), or of a registered one.
        guidance: one setting for all samples (a number is a scale), or one per sample.
        negative_prompt: what the unconditional side sees; one text, or one per prompt.
        fps: frame rate, for keyframes given in seconds; pipelines that take a frame rate tell it.
        classifier: for the rule `classifier`, (x_t, sigma, step) -> log p(y | x_t) per sample; x_t
            are the noisy latents in the model's layout, in float32 and with gradients on.
        **negative: the negative side as the pipeline itself takes it, already encoded:
            `negative_prompt_embeds`, its mask, pooled embeddings.

    Yields:
        The trace of the last pipeline call: strengths used, evaluations run, spread per frame.

    Raises:
        ValueError: for an unknown pipeline, a second `guide` on the same pipeline, a call that
            leaves the pipeline's own guidance on, or settings that do not fit the run.
        NonFiniteError: if a prediction holds NaN or Inf.

    The pipeline is as before on leaving, also after an exception. Not for use by two threads.
    """
    family = family_of(pipe)
    if getattr(type(pipe), "_vidcfg_session", None) is not None:
        raise ValueError(
            "this pipeline is already inside a vidcfg.guide block: guidance would be applied "
            "twice. Leave the first block, or pass one Guidance per sample as a list."
        )
    settings = _settings(guidance)
    if family.is_image:
        settings = [_without_frames(setting, family) for setting in settings]
    inputs = negative_inputs(family, negative, negative_prompt)
    if inputs and negative_prompt:
        raise ValueError(
            "guide() got a negative_prompt and negative embeddings. Pass one of them."
        )
    texts = BranchTexts(
        negative=negative_prompt,
        conditions=_conditions(settings),
        inputs={"negative": inputs} if inputs else {},
    )
    session = Session(
        pipe,
        family,
        settings,
        texts,
        settings[0],
        fps=fps,
        classifier=classifier,
    )
    original_class = type(pipe)
    pipe.__class__ = _guided_class(original_class, session)
    try:
        yield session.trace
    finally:
        pipe.__class__ = original_class
        session.close()


def _settings(guidance: Any) -> list[Guidance]:
    several = isinstance(guidance, Sequence) and not isinstance(guidance, str)
    settings = [
        item if isinstance(item, Guidance) else Guidance(scale=item)
        for item in (guidance if several else [guidance])
    ]
    if not settings:
        raise ValueError("guide() got an empty list of guidance settings. Pass at least one.")
    for name in ("passes", "micro_batch", "share"):
        if len({getattr(item, name) for item in settings}) > 1:
            raise ValueError(
                f"guidance.{name} differs between samples of one batch. It says how the model is "
                f"called, so all samples must share it."
            )
    return settings


def _without_frames(setting: Guidance, family: Family) -> Guidance:
    """`setting` for an image: what acts along frames is left out with a warning."""
    found = []
    for term in setting.terms:
        if term.frames.kind != "uniform":
            found.append(f"frames: {term.frames.kind}")
        if term.windows:
            found.append("windows")
    found = list(dict.fromkeys(found))
    if not found:
        return setting
    warnings.warn(
        f"{family.name} makes one frame, so guidance.{' and guidance.'.join(found)} cannot matter "
        f"and is left out: the whole image gets the full scale.",
        stacklevel=5,
    )
    return setting.without_frames()


def _conditions(settings: list[Guidance]) -> dict[str, str]:
    """Condition name -> prompt over all settings.

    Raises:
        ValueError: if one name stands for two prompts.
    """
    prompts: dict[str, str] = {}
    for setting in settings:
        named = [c for method in setting.methods for c in getattr(method, "conditions", ())]
        for condition in named:
            known = prompts.setdefault(condition.name, condition.prompt)
            if known != condition.prompt:
                raise ValueError(
                    f"condition '{condition.name}' stands for '{known}' and for "
                    f"'{condition.prompt}'. Give the second one another name."
                )
    return prompts


def _guided_class(cls: type, session: Session) -> type:
    """A subclass of the pipeline's class, under its name, whose call is checked and counted."""
    signature = inspect.signature(cls.__call__)

    @functools.wraps(cls.__call__)
    def call(self, *args, **kwargs):
        bound = signature.bind(self, *args, **kwargs)
        given = _without_own_guidance(session.family, dict(bound.arguments), signature)
        given.pop("self")
        extra = given.pop("kwargs", {})
        defaults = {n: p.default for n, p in signature.parameters.items() if n not in given}
        guider = guider_off(self, session.family.guider)
        installed = guided_forwards(self, session.family, session)
        with session.run(defaults | given | extra) as taken, guider, installed:
            given |= taken
            return cls.__call__(self, **given, **extra)

    body = {"__call__": call, "_vidcfg_session": session, "__module__": cls.__module__}
    return type(cls.__name__, (cls,), body | {"__qualname__": cls.__qualname__})


def _without_own_guidance(
    family: Family, given: dict[str, Any], signature: inspect.Signature
) -> dict[str, Any]:
    """The arguments of a call with the pipeline's own guidance off.

    Raises:
        ValueError: if the caller turned it on, or passed a negative side to the pipeline.
    """
    on_by_default = {}
    for name, off in family.own_guidance.items():
        if name not in signature.parameters:
            continue
        if name in given and given[name] is not None and given[name] != off:
            raise ValueError(
                f"this call has {name}={given[name]}, so guidance would be applied twice: "
                f"by the pipeline and by vidcfg. Pass {name}={off}; what guides is set in "
                f"vidcfg.Guidance."
            )
        default = signature.parameters[name].default
        if name not in given and default != off:
            on_by_default[name] = default
        given[name] = off
    if on_by_default:
        was = ", ".join(f"{name}={value}" for name, value in on_by_default.items())
        off = ", ".join(f"{name}={family.own_guidance[name]}" for name in on_by_default)
        warnings.warn(
            f"inside vidcfg.guide the pipeline's own {was} is switched off ({off}).", stacklevel=4
        )
    negative = [n for n, v in given.items() if n.startswith("negative_") and v is not None]
    if negative:
        raise ValueError(
            f"this call has {', '.join(negative)}, which has no effect while the pipeline's own "
            f"guidance is off. Pass it to vidcfg.guide(...)."
        )
    return given
