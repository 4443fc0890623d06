"""The denoisers of a pipeline guided for one of its calls: `forward` replaced, and put back."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from vidcfg.pipelines.arguments import by_name
from vidcfg.pipelines.caches import reset_cache
from vidcfg.pipelines.family import Family


@contextlib.contextmanager
def guided_forwards(
    pipe: Any, family: Family, forward: Callable, control: Callable
) -> Iterator[None]:
    """Replace `forward` of every denoiser and ControlNet, and switch the own guider off.

    Done anew for every call of the pipeline, because offloading takes its hooks off and puts them
    on again between calls, and `forward` with them.
    """
    replaced = []
    found = {name: (module, forward) for name, module in family.models_of(pipe).items()}
    if family.control is not None:
        found[family.control] = getattr(pipe, family.control), control
    guider = getattr(pipe, family.guider, None) if family.guider else None
    enabled = guider is not None and guider._enabled
    try:
        for attribute, (module, guided) in found.items():
            own = _own_forward(module, attribute)
            changed = _guided_forward(module, family.denoisers.get(attribute), guided)
            replaced.append((module, changed, own))
            module.forward = changed
        if enabled:
            guider.disable()
        yield
    finally:
        if enabled:
            guider._enabled = enabled
        for module, changed, own in replaced:
            reset_cache(module)
            if module.__dict__.get("forward") is not changed:
                continue  # a hook was taken off meanwhile and restored its own forward
            if own is not None:
                module.forward = own
            else:
                del module.forward


def _own_forward(module: Any, attribute: str) -> Callable | None:
    """The forward that a module has beside its class's; ValueError if it cannot be replaced."""
    is_compiled = getattr(module, "_compiled_call_impl", None) is not None
    if is_compiled or type(module).__name__ == "OptimizedModule":
        raise ValueError(
            f"pipe.{attribute} is compiled as a whole, so vidcfg.guide cannot reach into its "
            f"call. Compile its blocks instead: pipe.{attribute}.compile_repeated_blocks()."
        )
    own = vars(module).get("forward")
    if hasattr(own, "_is_guided"):
        raise _at_work(module)
    return own


def _at_work(module: Any) -> ValueError:
    name = type(module).__name__
    return ValueError(
        f"this {name} is at work in another guided call, of this pipeline or of one that shares "
        f"it. Call one after the other, or give each pipeline a {name} of its own."
    )


def _guided_forward(module: Any, expert: str | None, forward: Callable) -> Callable:
    """`forward(module, its own forward, expert, arguments by name)` as a method of a denoiser."""
    before, thread = module.forward, threading.get_ident()

    @functools.wraps(before)
    def guided(*args, **kwargs):
        if threading.get_ident() != thread:
            raise _at_work(module)
        return forward(module, before, expert, by_name(module, args, kwargs))

    guided._is_guided = True
    return guided
