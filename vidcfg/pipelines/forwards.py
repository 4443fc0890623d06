"""The denoisers of a pipeline guided for one of its calls: `forward` replaced, and put back."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from vidcfg.pipelines.arguments import by_name
from vidcfg.pipelines.caches import reset_cache
from vidcfg.pipelines.changes.layers import swapped
from vidcfg.pipelines.family import Family, uncompiled


@contextlib.contextmanager
def guided_forwards(
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
