"""Put the guided forward before a pipeline's denoisers for the length of one call."""

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

from vidcfg.pipelines.families import Family


@contextlib.contextmanager
def guided_forwards(pipe: Any, family: Family, session: Any) -> Iterator[None]:
    """Replace `forward` of every denoiser by the session's.

    Done anew for every call of the pipeline, because offloading takes its hooks off and puts them
    on again between calls, and `forward` with them.

    Raises:
        ValueError: for a denoiser compiled as a whole.
    """
    replaced = []
    for attribute, expert in family.denoisers.items():
        module = getattr(pipe, attribute, None)
        if module is None:
            continue
        _check_not_compiled(module, attribute)
        forward, had_own = module.forward, "forward" in vars(module)
        guided = _guided_forward(module, forward, expert, session)
        module.forward = guided
        replaced.append((module, guided, had_own, forward))
    try:
        yield
    finally:
        for module, guided, had_own, forward in replaced:
            if module.__dict__.get("forward") is not guided:
                continue  # a hook was taken off meanwhile and restored its own forward
            if had_own:
                module.forward = forward
            else:
                del module.forward


def _guided_forward(module: Any, forward: Any, expert: str | None, session: Any) -> Any:
    signature = inspect.signature(type(module).forward)

    @functools.wraps(forward)
    def guided(*args, **kwargs):
        arguments = signature.bind(module, *args, **kwargs).arguments
        arguments = dict(list(arguments.items())[1:])
        arguments |= arguments.pop("kwargs", {})
        return session.forward(module, forward, expert, arguments)

    return guided


def _check_not_compiled(module: Any, attribute: str) -> None:
    whole = getattr(module, "_compiled_call_impl", None) is not None
    if whole or type(module).__name__ == "OptimizedModule":
        raise ValueError(
            f"pipe.{attribute} is compiled as a whole, so vidcfg.guide cannot reach into its "
            f"call. Compile its blocks instead: pipe.{attribute}.compile_repeated_blocks()."
        )


@contextlib.contextmanager
def guider_off(pipe: Any, attribute: str | None) -> Iterator[None]:
    """Switch the pipeline's own guider off, and back to what it was."""
    guider = getattr(pipe, attribute, None) if attribute else None
    if guider is None:
        yield
        return
    before = guider._enabled
    guider.disable()
    try:
        yield
    finally:
        guider._enabled = before
