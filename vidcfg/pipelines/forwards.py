"""The denoisers of a pipeline guided for one of its calls: `forward` replaced, and put back."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from vidcfg.pipelines.arguments import by_name
from vidcfg.pipelines.caches import reset_cache
from vidcfg.pipelines.family import Family, uncompiled


@contextlib.contextmanager
def guided_forwards(
    pipe: Any, family: Family, forward: Callable, control: Callable
) -> Iterator[None]:
    """Replace `forward` of every denoiser and ControlNet, and switch the own guider off.

    Done anew for every call of the pipeline, because offloading takes its hooks off and puts them
    on again between calls, and `forward` with them.
    """
    replaced = []
    found = dict.fromkeys(family.models_of(pipe), forward)
    if family.control is not None:
        found[family.control] = control
    guider = getattr(pipe, family.guider, None) if family.guider else None
    enabled = guider is not None and guider._enabled
    try:
        for attribute, guided in found.items():
            owner = getattr(pipe, attribute)
            name = _name_of_forward(owner)
            module, own = uncompiled(owner), vars(owner).get(name)
            if hasattr(own, "_is_guided"):
                raise _at_work(module)
            before, expert = getattr(owner, name), family.denoisers.get(attribute)
            changed = _guided_forward(module, before, expert, guided)
            replaced.append((module, owner, name, changed, own))
            setattr(owner, name, changed)
        if enabled:
            guider.disable()
        yield
    finally:
        if enabled:
            guider._enabled = enabled
        for module, owner, name, changed, own in replaced:
            reset_cache(module)
            if vars(owner).get(name) is not changed:
                continue  # a hook was taken off meanwhile and restored its own forward
            if own is not None:
                setattr(owner, name, own)
            else:
                delattr(owner, name)


def _name_of_forward(owner: Any) -> str:
    """The name of the forward that a pipeline comes to first.

    Of a model that is compiled as a whole it is the compiled one, which calls all others.
    """
    is_in_place = getattr(owner, "_compiled_call_impl", None) is not None
    return "_compiled_call_impl" if is_in_place else "forward"


def _at_work(module: Any) -> ValueError:
    name = type(module).__name__
    return ValueError(
        f"this {name} is at work in another guided call, of this pipeline or of one that shares "
        f"it. Call one after the other, or give each pipeline a {name} of its own."
    )


def _guided_forward(
    module: Any, before: Callable, expert: str | None, forward: Callable
) -> Callable:
    """`forward(module, its own forward, expert, arguments by name)` in the place of `before`."""
    thread = threading.get_ident()

    @functools.wraps(before)
    def guided(*args, **kwargs):
        if threading.get_ident() != thread:
            raise _at_work(module)
        return forward(module, before, expert, by_name(module, args, kwargs))

    guided._is_guided = True
    return guided
