"""Caching hooks of diffusers under guidance: which work branch by branch, which are refused."""

from typing import Any

from vidcfg.guidance.passes import Passes
from vidcfg.guidance.plan import SampleRows

_SKIP_STEPS = ("FirstBlockCache", "PyramidAttentionBroadcast")
"""Caches that compare what they see, or count per branch: a branch may pause for some steps."""

_HOOKS = {
    "faster_cache": "FasterCache",
    "fbc": "FirstBlockCache",
    "pyramid_attention_broadcast": "PyramidAttentionBroadcast",
    "mag_cache": "MagCache",
    "sea_cache": "SeaCache",
    "taylorseer": "TaylorSeerCache",
    "text_kv_cache": "TextKVCache",
}


def cache_of(module: Any) -> str | None:
    """The name of the diffusers cache that is active on a denoiser, or None."""
    for child in module.modules():
        for name in getattr(getattr(child, "_diffusers_hook", None), "hooks", {}):
            for part, cache in _HOOKS.items():
                if part in name:
                    return cache
    return None


def check_cache(cache: str, samples: SampleRows, passes: Passes) -> None:
    """Refuse what would feed a cache with another call's tensors.

    Raises:
        ValueError: for FasterCache; for rows of a branch that differ between steps; for branches
            that pause under a cache that counts steps; for micro batches.
    """
    off = "Switch it off with `disable_cache()`, or {}."
    if cache == "FasterCache":
        raise ValueError(
            "FasterCache makes the unconditional half of a batch up from the conditional one, so "
            "it cannot be combined with vidcfg.guide. Use FirstBlockCache or "
            "PyramidAttentionBroadcast."
        )
    if passes.micro_batch is not None:
        raise ValueError(
            f"{cache} keeps one state per branch, and guidance.micro_batch cuts a branch into "
            f"several calls. " + off.format("leave micro_batch out")
        )
    wanted: dict[str, list[tuple[int, ...]]] = {}
    num_steps = samples.num_steps
    for k in range(num_steps):
        rows: dict[str, list[int]] = {}
        for b in range(len(samples.rules)):
            for branch in samples.branches(b, k):
                rows.setdefault(branch, []).append(b)
        for branch, members in rows.items():
            wanted.setdefault(branch, []).append(tuple(members))
    for branch, sets in wanted.items():
        if len(set(sets)) > 1:
            raise ValueError(
                f"{cache} keeps the tensors of the previous step, but the samples that need the "
                f"{branch} branch change from step to step. "
                + off.format("render these settings one at a time")
            )
        if len(sets) < num_steps and cache not in _SKIP_STEPS:
            raise ValueError(
                f"{cache} counts steps, but the {branch} branch runs on {len(sets)} of "
                f"{num_steps} steps only. " + off.format(f"use one of {', '.join(_SKIP_STEPS)}")
            )
