"""`vidcfg.guide`: put frame-aware guidance into a pipeline, and take it out again."""

import contextlib
import functools
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vidcfg.guidance.setting import Guidance, Written
from vidcfg.guidance.step import check_finite
from vidcfg.guidance.trace import Trace
from vidcfg.pipelines.arguments import by_name, call_signature, without_own_guidance
from vidcfg.pipelines.caches import reset_cache
from vidcfg.pipelines.changes.base import LogProb
from vidcfg.pipelines.changes.layers import swapped
from vidcfg.pipelines.families import family_of
from vidcfg.pipelines.family import Family, uncompiled
from vidcfg.pipelines.run import GuidedRun
from vidcfg.pipelines.texts import (
    BranchTexts,
    conditions_of,
    kept_from_negative,
    negative_inputs,
    negative_texts,
)


@contextlib.contextmanager
def guide(
    pipe: Any,
    guidance: Written | Sequence[Written],
    *,
    negative_prompt: str | Sequence[str | None] | None = "",
    fps: float | int | None = None,
    classifier: LogProb | None = None,
    **negative: Tensor,
) -> Iterator[Trace]:
    """Guide every call of `pipe` inside the `with` block, frame by frame and step by step.

        with vidcfg.guide(pipe, vidcfg.Guidance(scale=6.0), negative_prompt="blurry") as trace:
            video = pipe(prompt, num_frames=81, guidance_scale=1.0).frames

    Args:
        pipe: a pipeline of a supported family (`vidcfg families`), or of a registered one.
        guidance: one setting for all samples, or one per sample: a number (the scale), a mapping
            such as {"scale": 6.0, "rescale": 0.5}, or the path of a YAML file with `guidance`.
        negative_prompt: what the unconditional side sees; a text (None: ""), or one per prompt.
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

    The pipeline is as before on leaving, also after an exception. Not for use by two threads,
    nor is a denoiser that pipelines share while one of them is guided. No gradient goes through a
    guided prediction.
    """
    family = family_of(pipe)
    if getattr(type(pipe), "_vidcfg_session", None) is not None:
        raise ValueError(
            "this pipeline is already inside a vidcfg.guide block: guidance would be applied "
            "twice. Leave the first block, or pass one Guidance per sample as a list."
        )
    settings, cls, session = _settings(guidance, family), type(pipe), None
    negative_prompt = negative_texts(negative_prompt)
    if family.guiders:
        from vidcfg.pipelines.modular import guided_modular  # its guider is a class of diffusers

        trace, changed = guided_modular(pipe, family, settings, negative_prompt, negative, fps)
    else:
        given = negative_inputs(family, negative, negative_prompt)
        rules = [rule for setting in settings for rule in setting.method.terms]
        inputs = given and {"negative": given}
        on = [s for s in settings if family.second_stream is not None or not s.is_off]
        early = [source for setting in on for source in setting.method.sources().values()]
        conditions = conditions_of(rules)
        texts = BranchTexts(pipe, family, negative_prompt, conditions, inputs, early)
        session = Session(pipe, family, settings, texts, fps, classifier)
        trace, changed = session.trace, _guided_methods(cls, family, session)
    # A subclass under the class's own name, so that nothing else in the process is changed.
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    own = {**names, **changed, "_vidcfg_session": session or trace}
    pipe.__class__ = type(cls.__name__, (cls,), own)
    try:
        yield trace
    finally:
        pipe.__class__ = cls
        if session is not None:  # a kept trace keeps no model alive
            session.pipe = session.texts = session.in_progress = None


@dataclass(eq=False)
class Session:
    """One `guide` block: a pipeline, the rules for it, and the run in progress."""

    pipe: Any
    family: Family
    rules: Sequence[Guidance]
    texts: BranchTexts
    fps: float | int | None
    classifier: LogProb | None
    trace: Trace = field(default_factory=Trace)
    call: Mapping[str, Any] = field(default_factory=dict)
    in_progress: GuidedRun | None = None
    own_guidance: dict[str, Any] | None = None
    frame_table: Any = None
    num_loops: int = 0
    control: tuple[Callable, dict[str, Any]] | None = None
    scales_noted: bool = False

    @contextlib.contextmanager
    def run(self, call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """One pipeline call with these arguments (defaults filled in).

        Yields the arguments that guidance takes over from the pipeline, with their off values.

        Raises:
            ValueError: if the pipeline is in a state that cannot be guided.
        """
        reason = self.family.refusal(self.pipe, call) if self.family.refusal else None
        if reason is not None:
            raise ValueError(reason)
        self.call, self.in_progress, self.own_guidance, self.num_loops = call, None, None, 0
        self.texts.encoded.clear()
        second = self.family.second_stream
        try:
            with _guided_forwards(self.pipe, self.family, self.forward, self.keep_control):
                yield {} if second is None else {second.scale_argument: 1.0}
            check_finite(self.trace.steps)
        finally:
            self.call, self.in_progress, self.control = {}, None, None
            self.texts.encoded.clear()

    def forward(
        self, module: Any, original: Callable, expert: str | None, arguments: dict[str, Any]
    ) -> Any:
        """The guided replacement of one denoiser forward."""
        self.own_guidance = _own_guidance(self.pipe, self.family, self.own_guidance)
        if self.control is not None:
            arguments[self.family.control] = self.control[1]
        # A pipeline that begins its loop anew begins a new run.
        if self.in_progress is None or not self.in_progress.place.goes_on(arguments):
            self.in_progress = GuidedRun(self, module, arguments)
            self.num_loops += 1
        return self.in_progress.step(module, original, expert, arguments)

    def begin_with(self, frame_table: Any) -> None:
        """A loop begins, whose frames have the noise levels that this table tells."""
        self.frame_table, self.in_progress = frame_table, None

    def keep_control(
        self, module: Any, original: Callable, expert: str | None, arguments: dict[str, Any]
    ) -> tuple[tuple, None]:
        """In the place of a ControlNet's forward: each branch calls it, with a text of its own."""
        self.control = original, arguments
        return (), None


def _settings(guidance: Any, family: Family) -> list[Guidance]:
    """The settings as a list; for an image, without what acts along frames."""
    several = isinstance(guidance, Sequence) and not isinstance(guidance, str)
    given = guidance if several else [guidance]
    settings = []
    for item in given:
        setting = Guidance.of(item)
        rescale = setting.rescale
        if not rescale.is_off and rescale.space == "pipeline":  # that of the stock one
            rescale = rescale.model_copy(update={"space": family.rescale_space})
            setting = setting.model_copy(update={"rescale": rescale})
        settings.append(setting)
    if not settings:
        raise ValueError("guide() got an empty list of guidance settings. Pass at least one.")
    for name in ("passes", "micro_batch", "share"):
        if len({getattr(item, name) for item in settings}) > 1:
            raise ValueError(
                f"guidance.{name} differs between samples of one batch. It says how the model is "
                f"called, so all samples must share it."
            )
    if family.is_image:
        return [_without_frames(setting, family) for setting in settings]
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
        stacklevel=6,
    )
    return setting.without_frames()


def _guided_methods(cls: type, family: Family, session: Session) -> dict[str, Callable]:
    """The methods of a pipeline's class by name, so that its call is checked and guided."""
    signature = call_signature(cls)
    own, *_ = signature.parameters

    @functools.wraps(cls.__call__)
    def call(self, *args, **kwargs):
        if self is not session.pipe:
            raise ValueError(
                "this pipeline is a copy that was made inside a vidcfg.guide block, which guides "
                "the pipeline that it was given and no other. Copy it before, and guide the copy."
            )
        bound = signature.bind(self, *args, **kwargs)
        given = without_own_guidance(family, dict(bound.arguments), signature)
        given.pop(own)
        extra = given.pop("kwargs", {})
        if (name := "callback_on_step_end") in given:
            given[name] = kept_from_negative(given[name])
        defaults = {n: p.default for n, p in signature.parameters.items() if n not in given}
        with session.run(defaults | given | extra) as taken:
            given |= taken
            return cls.__call__(self, **given, **extra)

    changed = {"__call__": call}
    after = {"encode_prompt": lambda encoded: session.texts.encode_early(session.call)}
    if family.frame_levels is not None:
        after[family.frame_levels.method] = session.begin_with
    for name in after:
        if hasattr(cls, name):
            changed[name] = _followed(getattr(cls, name), after[name])
    return changed


def _followed(method: Callable, after: Callable[[Any], Any]) -> Callable:
    """A method that hands its result to `after` too."""

    @functools.wraps(method)
    def followed(self, *args, **kwargs):
        result = method(self, *args, **kwargs)
        after(result)
        return result

    return followed


def _own_guidance(pipe: Any, family: Family, before: dict[str, Any] | None) -> dict[str, Any]:
    """What the pipeline's own guidance was before; ValueError where a callback has changed it."""
    names = (f"_{name}" for name in ("guidance_scale", *family.own_guidance))
    now = {name: vars(pipe).get(name) for name in names}
    for name, was in (before or now).items():
        if now[name] is not was and (isinstance(was, Tensor) or now[name] != was):
            raise ValueError(
                f"a callback set pipe.{name} = {now[name]}, but inside vidcfg.guide the "
                f"pipeline's own guidance is off. Write it as a schedule of guidance.scale, "
                f"such as {{'kind': 'interval', 'value': 6.0, 'from': 0.0, 'to': 0.4}}."
            )
    return before or now


@contextlib.contextmanager
def _guided_forwards(
    pipe: Any, family: Family, forward: Callable, control: Callable
) -> Iterator[None]:
    """Replace `forward` of every denoiser and ControlNet, and switch the own guider off.

    Done anew for every call of the pipeline, because offloading takes its hooks off and puts them
    on again between calls, and `forward` with them.
    """
    found = dict.fromkeys(family.models_of(pipe), forward)
    if family.control is not None:
        found[family.control] = control
    guider = getattr(pipe, family.guider, None) if family.guider else None
    with contextlib.ExitStack() as stack:
        for attribute, guided in found.items():
            owner, expert = getattr(pipe, attribute), family.denoisers.get(attribute)
            stack.enter_context(_guided_forward(owner, expert, guided))
        if guider is not None:
            stack.enter_context(swapped(guider, "_enabled", False))
        yield


@contextlib.contextmanager
def _guided_forward(owner: Any, expert: str | None, forward: Callable) -> Iterator[None]:
    """`forward(module, its own forward, expert, arguments by name)` in the place of a forward.

    It is the one that a pipeline comes to first: of a model that is compiled as a whole the
    compiled one, which calls all others.
    """
    is_in_place = getattr(owner, "_compiled_call_impl", None) is not None
    name = "_compiled_call_impl" if is_in_place else "forward"
    module, own, thread = uncompiled(owner), vars(owner).get(name), threading.get_ident()
    before, cls = getattr(owner, name), type(module).__name__
    at_work = (
        f"this {cls} is at work in another guided call, of this pipeline or of one that shares "
        f"it. Call one after the other, or give each pipeline a {cls} of its own."
    )
    if hasattr(own, "_is_guided"):
        raise ValueError(at_work)

    @functools.wraps(before)
    def guided(*args, **kwargs):
        if threading.get_ident() != thread:
            raise ValueError(at_work)
        return forward(module, before, expert, by_name(module, args, kwargs))

    guided._is_guided = True
    setattr(owner, name, guided)
    try:
        yield
    finally:
        reset_cache(module)
        # A hook that was taken off meanwhile has restored its own forward.
        if vars(owner).get(name) is guided:
            if own is not None:
                setattr(owner, name, own)
            else:
                delattr(owner, name)
