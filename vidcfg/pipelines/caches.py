"""Caching hooks of diffusers under guidance: which work branch by branch, which are refused."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vidcfg.guidance.passes import Passes, StepInputs
from vidcfg.guidance.plan import SampleRows

_IN_BLOCKS = ("leaves out blocks", "reads attention")


@dataclass(frozen=True)
class CacheKind:
    """A cache of diffusers: `hook` is in the names of its hooks.

    `may_pause` tells that it compares what it sees, or counts per branch, so that a branch may
    pause for some steps; `refuses` is what rules must not do to the model, in the words of
    `ModelChange.touches`; `is_shared` tells that diffusers keeps one state for all calls, with
    which a pass would get another branch's attention; `refusal` why it works with no guidance.
    """

    name: str
    hook: str
    may_pause: bool = False
    refuses: tuple[str, ...] = _IN_BLOCKS
    is_shared: bool = False
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
        refuses=("changes attention", "reads attention"),
        is_shared=True,
    ),
    CacheKind("MagCache", "mag_cache"),
    CacheKind("SeaCache", "sea_cache"),
    CacheKind("TaylorSeerCache", "taylorseer", refuses=(*_IN_BLOCKS, "changes attention")),
    CacheKind("TextKVCache", "text_kv_cache"),
)


def hooks_of(module: Any) -> list[tuple[str, Any]]:
    """Name and hook of every diffusers hook in a denoiser."""
    found = (getattr(child, "_diffusers_hook", None) for child in module.modules())
    return [item for registry in found for item in getattr(registry, "hooks", {}).items()]


def cache_of(module: Any) -> CacheKind | None:
    """The diffusers cache that is active on a denoiser, or None."""
    names = [name for name, _ in hooks_of(module)]
    return next((kind for name in names for kind in KNOWN if kind.hook in name), None)


class RunCaches:
    """The caches of a run, and a state for each branch while it lasts.

    `models` are the denoisers by the expert that each is (None: the only one), `experts` those of
    the steps, `calls` the model calls of every step. `found` has each cache and the steps on which
    its model runs, for `check_cache`.
    """

    def __init__(
        self,
        models: Mapping[str | None, Any],
        experts: tuple[str, ...] | None,
        calls: tuple[int, ...],
    ):
        self.num_steps = len(calls)
        self.found: list[tuple[CacheKind, list[int]]] = []
        self.by_call: dict[tuple[str, Any], Any] = {}
        self.shared: dict[Any, list[Any]] = {}
        for expert, module in models.items():
            cache, told = cache_of(module), experts or [expert] * len(calls)
            steps = [k for k, count in enumerate(calls) if count and told[k] == expert]
            if cache is None or not steps:
                continue
            self.found.append((cache, steps))
            if cache.is_shared:
                hooks = [hook for name, hook in hooks_of(module) if cache.hook in name]
                self.shared[module] = hooks

    @contextlib.contextmanager
    def context(
        self, module: Any, branches: tuple[str, ...], inputs: StepInputs
    ) -> Iterator[None]:
        """Around one call of a denoiser; models without caches need none."""
        name, hooks = "_".join(dict.fromkeys(branches)), self.shared.get(module, ())
        own = [hook.state for hook in hooks]
        for hook, state in zip(hooks, own):
            hook.state = self.by_call.setdefault((name, hook), type(state)())
        try:
            with self._named(module, name, inputs):
                yield
        finally:
            for hook, state in zip(hooks, own):
                hook.state = state

    def _named(
        self, module: Any, name: str, inputs: StepInputs
    ) -> contextlib.AbstractContextManager:
        """Where caching hooks keep what they see in this call."""
        context = getattr(module, "cache_context", None)
        if context is None:
            return contextlib.nullcontext()
        where = {"step_index": inputs.step, "sigma": inputs.sigma}
        where["num_inference_steps"] = self.num_steps
        accepts = "kwargs" in inspect.signature(context).parameters
        return context(name, **(where if accepts else {}))


def reset_cache(module: Any) -> None:
    """Forget what a cache has kept, as pipelines do at the end of a run that comes to it."""
    if cache_of(module) is not None:
        module._reset_stateful_cache()


def check_cache(
    cache: CacheKind,
    samples: SampleRows,
    passes: Passes,
    touches: Mapping[str, str],
    steps: list[int],
) -> None:
    """Refuse what would feed a cache with another call's tensors.

    `steps` are those on which the model that has the cache runs.

    Raises:
        ValueError: for a cache that works with no guidance; for rows of a branch that differ
            between steps; for branches that pause under a cache that counts steps; for micro
            batches and passes that are timed; for rules that touch what the cache leaves out.
    """
    off = "Switch it off with `disable_cache()`, or {}."
    if cache.refusal is not None:
        raise ValueError(cache.refusal)
    if passes.micro_batch is not None:
        raise ValueError(
            f"{cache.name} keeps one state per branch, and guidance.micro_batch cuts a branch "
            f"into several calls. " + off.format("leave micro_batch out")
        )
    if passes.mode == "auto":
        raise ValueError(
            f"{cache.name} keeps one state per call, and guidance.passes: auto tries two ways to "
            f"call. " + off.format("use passes: sequential")
        )
    for rule, does in touches.items():
        if does in cache.refuses:
            raise ValueError(
                f"{rule} {does}, and {cache.name} keeps what was computed there, to leave it out. "
                + off.format("use guidance.method: stg with mode: attention")
            )
    free = ", ".join(kind.name for kind in KNOWN if kind.may_pause)
    stopping = [rule.kind for rule in samples.rules if rule.method.may_stop]
    if stopping and not cache.may_pause:
        raise ValueError(
            f"{cache.name} counts steps, but {stopping[0]} stops a branch when it likes. "
            + off.format(f"use one of {free}")
        )
    if stopping and len(samples.rules) > 1:
        raise ValueError(
            f"{cache.name} keeps the tensors of the previous step, but {stopping[0]} stops each "
            f"sample on a step of its own. " + off.format("render the samples one at a time")
        )
    needed = [[run[k].branches for run in samples.steps] for k in steps]
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
        if len(members) < len(steps) and not cache.may_pause:
            raise ValueError(
                f"{cache.name} counts steps, but the {branch} branch runs on {len(members)} of "
                f"{len(steps)} steps only. " + off.format(f"use one of {free}")
            )
