"""`vidcfg.guide`: put frame-aware guidance into a pipeline, and take it out again."""

import functools
import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from vidcfg.build.rule import build_rule
from vidcfg.build.session import Session
from vidcfg.build.texts import BranchTexts, negative_inputs
from vidcfg.config import Guidance
from vidcfg.guidance.trace import Trace
from vidcfg.models.families import Family, family_of


@contextmanager
def guide(
    pipe: Any,
    guidance: Guidance | float | Sequence[Guidance | float],
    *,
    negative_prompt: str | list[str] = "",
    fps: float | int | None = None,
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
    inputs = negative_inputs(family, negative)
    if inputs and negative_prompt:
        raise ValueError(
            "guide() got a negative_prompt and negative embeddings. Pass one of them."
        )
    texts = BranchTexts(
        negative=negative_prompt,
        conditions=_conditions(settings),
        inputs={"negative": inputs} if inputs else {},
    )
    session = Session(pipe, family, [build_rule(s) for s in settings], texts, settings[0], fps=fps)
    original_class = type(pipe)
    originals = _replace_forwards(pipe, family, session)
    pipe.__class__ = _guided_class(original_class, session)
    try:
        yield session.trace
    finally:
        pipe.__class__ = original_class
        for module, had_own, forward in originals:
            if had_own:
                module.forward = forward
            else:
                del module.forward
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


def _conditions(settings: list[Guidance]) -> dict[str, str]:
    """Condition name -> prompt over all settings.

    Raises:
        ValueError: if one name stands for two prompts.
    """
    prompts: dict[str, str] = {}
    for setting in settings:
        for condition in getattr(setting.method, "conditions", ()):
            known = prompts.setdefault(condition.name, condition.prompt)
            if known != condition.prompt:
                raise ValueError(
                    f"condition '{condition.name}' stands for '{known}' and for "
                    f"'{condition.prompt}'. Give the second one another name."
                )
    return prompts


def _replace_forwards(pipe: Any, family: Family, session: Session) -> list[tuple]:
    """Put the session before the forward of every denoiser; what is needed to undo it."""
    originals = []
    for attribute, expert in family.denoisers.items():
        module = getattr(pipe, attribute, None)
        if module is None:
            continue
        forward = module.forward
        originals.append((module, "forward" in vars(module), forward))
        signature = inspect.signature(type(module).forward)

        def guided(*args, _module=module, _forward=forward, _expert=expert, _sig=signature, **kw):
            arguments = _sig.bind(_module, *args, **kw).arguments
            arguments = dict(list(arguments.items())[1:])
            arguments |= arguments.pop("kwargs", {})
            return session.forward(_module, _forward, _expert, arguments)

        module.forward = functools.wraps(forward)(guided)
    return originals


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
        with session.run(defaults | given):
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
    for name, off in family.own_guidance.items():
        if name not in signature.parameters:
            continue
        if name in given and given[name] is not None and given[name] != off:
            raise ValueError(
                f"this call has {name}={given[name]}, so guidance would be applied twice: "
                f"by the pipeline and by vidcfg. Pass {name}={off}; the scale goes to "
                f"vidcfg.Guidance."
            )
        default = signature.parameters[name].default
        if name not in given and default != off:
            warnings.warn(
                f"inside vidcfg.guide the pipeline's own {name}={default} is switched off "
                f"({name}={off}).",
                stacklevel=4,
            )
        given[name] = off
    negative = [n for n, v in given.items() if n.startswith("negative_") and v is not None]
    if negative:
        raise ValueError(
            f"this call has {', '.join(negative)}, which has no effect while the pipeline's own "
            f"guidance is off. Pass it to vidcfg.guide(...)."
        )
    return given
