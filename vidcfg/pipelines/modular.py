"""Guidance of a modular pipeline, whose loop is made of blocks: it goes in as their guider."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from torch import Tensor

from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.step import check_finite
from vidcfg.guidance.trace import Trace
from vidcfg.pipelines.caches import cache_of
from vidcfg.pipelines.changes.layers import swapped
from vidcfg.pipelines.family import Family
from vidcfg.pipelines.guider import FrameGuidance
from vidcfg.pipelines.run import facts_of_latents
from vidcfg.pipelines.steps import RunFacts


def guided_modular(
    pipe: Any,
    family: Family,
    settings: list[Guidance],
    negative_prompt: str | list[str],
    negative: Mapping[str, Tensor],
    fps: float | int | None,
) -> tuple[Trace, dict[str, Callable]]:
    """The trace and the guided `__call__` of a modular pipeline: the rest of `guide`.

    The guiders of the pipeline are its own again after each call.

    Raises:
        ValueError: for what a guider cannot do, several settings, a negative side that the blocks
            of this pipeline do not take, or a call that brings one.
    """
    if len(settings) > 1:
        raise ValueError(
            "a modular pipeline takes one guidance setting for all samples of a call. Pass one, "
            "and call it once for each setting."
        )
    taken = pipe.blocks.input_names
    sides = [name for name in taken if name and name.startswith("negative_")]
    unknown = [name for name in negative if name not in sides]
    if negative_prompt and "negative_prompt" not in sides:
        unknown.append("negative_prompt")
    if unknown:
        raise ValueError(
            f"guide() got {', '.join(unknown)}, but the blocks of this {type(pipe).__name__} take "
            f"{', '.join(sides) or 'no negative side'}. Pass that, or add the block that reads it."
        )
    FrameGuidance(settings[0])  # what a guider cannot do is told before the first call
    trace, cls = Trace(), type(pipe)

    @functools.wraps(cls.__call__)
    def call(self, state=None, output=None, **given):
        brought = [name for name, v in given.items() if name.startswith("negative_")]
        if brought:
            raise ValueError(
                f"this call has {', '.join(brought)}. Pass it to vidcfg.guide(...), as for every "
                f"other pipeline."
            )
        for cache in map(cache_of, family.models_of(self).values()):
            if cache is not None and (cache.is_shared or not cache.may_pause):
                raise ValueError(
                    f"{cache.name} mixes or miscounts the passes that the blocks of a modular "
                    f"pipeline run. Switch it off with `disable_cache()`, or use FirstBlockCache, "
                    f"or the pipeline without blocks."
                )
        known = self.default_call_parameters | (state.values if state is not None else {}) | given
        prompt = known.get("prompt")
        if negative:
            given |= negative
        elif "negative_prompt" in sides:
            several = isinstance(prompt, list) and isinstance(negative_prompt, str)
            each = [negative_prompt] * len(prompt) if several else negative_prompt
            given["negative_prompt"] = each
        if not (settings[0].is_off or any(n in given or known.get(n) is not None for n in sides)):
            raise ValueError(
                f"the blocks of this {cls.__name__} encode no text, so that there is no negative "
                f"side. Pass {', '.join(sides)} to vidcfg.guide(...)."
            )
        guider = _guider(self, family, settings[0], known, fps, trace)
        with contextlib.ExitStack() as stack:
            for name in family.guiders:
                if hasattr(self, name):
                    stack.enter_context(swapped(self, name, guider))
            made = cls.__call__(self, state, output, **given)
        check_finite(trace.steps)
        return made

    return trace, {"__call__": call}


def _guider(
    pipe: Any,
    family: Family,
    setting: Guidance,
    call: Mapping[str, Any],
    fps: float | int | None,
    trace: Trace,
) -> FrameGuidance:
    """The guider of one call, which asks the pipeline what the run is."""
    length = family.length_argument and call.get(family.length_argument)
    video, latent_frames, loops = family.frame_map(pipe), None, count()
    if family.part is not None:
        latent_frames = video.num_latents(len(family.part(pipe, call, 0)[1]))
    elif length and family.others is None:
        latent_frames = video.num_latents(length)

    def facts_of(num_frames: int) -> RunFacts:
        if latent_frames not in (None, num_frames):
            raise ValueError(
                f"this call has {family.length_argument}={length}, but latents of {num_frames} "
                f"frames. Use {video.num_pixels(num_frames)}."
            )
        facts = facts_of_latents(pipe, family, call, num_frames, loop=next(loops), fps=fps)
        if max(facts.calls) > 1:
            raise ValueError(
                f"{type(pipe.scheduler).__name__} calls the model more than once a step, which "
                f"the blocks of a modular pipeline count as steps. Use a scheduler of first order."
            )
        return facts

    guider = FrameGuidance(setting, layout=family.layout, latent_frames=latent_frames)
    guider.told_by(facts_of, trace)
    return guider
