"""Caching hooks of diffusers under guidance: which work branch by branch, which are refused."""

import contextlib
import inspect
from dataclasses import dataclass
from typing import Any

from vidcfg.guidance.passes import Passes, StepInputs
from vidcfg.guidance.plan import SampleRows


@dataclass(frozen=True)
class CacheKind:
    """A cache of diffusers: `hook` is in the names of its hooks.

    `may_pause` tells that it compares what it sees, or counts per branch, so that a branch may
    pause for some steps; `in_blocks` that its state is in whole blocks, so that none may be left
    out; `refusal` why it works with no guidance.
    """

    name: str
    hook: str
    may_pause: bool = False
    in_blocks: bool = True
    refusal: str | None = None


_MADE_UP = (
    "FasterCache makes the unconditional half of a batch up from the conditional one, so it "
    "cannot be combined with vidcfg.guide. Use FirstBlockCache or PyramidAttentionBroadcast."
)
KNOWN = (
    CacheKind("FasterCache", "faster_cache", refusal=_MADE_UP),
    CacheKind("FirstBlockCache", "fbc", may_pause=True),
    CacheKind(
        "PyramidAttentionBroadcast",
        "pyramid_attention_broadcast",
        may_pause=True,
        in_blocks=False,
    ),
    CacheKind("MagCache", "mag_cache"),
    CacheKind("SeaCache", "sea_cache"),
    CacheKind("TaylorSeerCache", "taylorseer"),
    CacheKind("TextKVCache", "text_kv_cache"),
)


def cache_of(module: Any) -> CacheKind | None:
    """The diffusers cache that is active on a denoiser, or None."""
    hooks = (
        name
        for child in module.modules()
        for name in getattr(getattr(child, "_diffusers_hook", None), "hooks", {})
    )
    return next((kind for name in hooks for kind in KNOWN if kind.hook in name), None)


def check_cache(
    cache: CacheKind, samples: SampleRows, passes: Passes, skipping: list[str]
) -> None:
    """Refuse what would feed a cache with another call's tensors.

    Raises:
        ValueError: for a cache that works with no guidance; for rows of a branch that differ
            between steps; for branches that pause under a cache that counts steps; for micro
            batches; for rules in `skipping`, which leave out blocks.
    """
    off = "Switch it off with `disable_cache()`, or {}."
    if cache.refusal is not None:
        raise ValueError(cache.refusal)
    if passes.micro_batch is not None:
        raise ValueError(
            f"{cache.name} keeps one state per branch, and guidance.micro_batch cuts a branch "
            f"into several calls. " + off.format("leave micro_batch out")
        )
    if skipping and cache.in_blocks:
        raise ValueError(
            f"{skipping[0]} leaves out blocks, and {cache.name} keeps its state in the blocks. "
            + off.format("use guidance.method: pag")
        )
    needed = [[steps[k].branches for steps in samples.steps] for k in range(samples.num_steps)]
    for branch in dict.fromkeys(name for rows in needed for names in rows for name in names):
        # The samples that need it, on the steps that run it.
        members = [tuple(b for b, names in enumerate(r) if branch in names) for r in needed]
        members = [some for some in members if some]
        if len(set(members)) > 1:
            raise ValueError(
                f"{cache.name} keeps the tensors of the previous step, but the samples that need "
                f"the {branch} branch change from step to step. "
                + off.format("render these settings one at a time")
            )
        if len(members) < samples.num_steps and not cache.may_pause:
            free = ", ".join(kind.name for kind in KNOWN if kind.may_pause)
            raise ValueError(
                f"{cache.name} counts steps, but the {branch} branch runs on {len(members)} of "
                f"{samples.num_steps} steps only. " + off.format(f"use one of {free}")
            )


def cache_context(
    module: Any, branches: tuple[str, ...], inputs: StepInputs, num_steps: int
) -> contextlib.AbstractContextManager:
    """Caching hooks keep one state per branch; models without caches need none."""
    context = getattr(module, "cache_context", None)
    if context is None:
        return contextlib.nullcontext()
    where = {"step_index": inputs.step, "num_inference_steps": num_steps, "sigma": inputs.sigma}
    accepts = "kwargs" in inspect.signature(context).parameters
    return context("_".join(dict.fromkeys(branches)), **(where if accepts else {}))
