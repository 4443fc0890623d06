"""A pass whose transformer blocks are changed for its length, and then exactly as before."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

from torch import Tensor

from vidcfg.guidance.perturbation import Perturbation, check_isolation
from vidcfg.pipelines.arguments import by_name
from vidcfg.pipelines.caches import hooks_of
from vidcfg.pipelines.changes.attention import AttentionCall, attending
from vidcfg.pipelines.changes.base import ModelChange, StepCall
from vidcfg.pipelines.changes.layers import (
    blur_tokens,
    find_layers,
    forward_replaced,
    token_grid,
    token_split,
)
from vidcfg.pipelines.family import Family, Grid


class PerturbedPass(ModelChange, setting=Perturbation):
    """The passes of pag, slg, stg and seg, and of any rule that names a `Perturbation`."""

    @property
    def touches(self) -> dict[str, str]:
        parts = {"skip": "leaves out blocks", "identity": "changes attention"}
        parts["blur"] = parts["identity"]
        return {c.rule: parts[c.kind] for c in self.of.values() if c.kind in parts}

    def begin(self) -> None:
        family = self.start.family
        own = family.blocks.own if family.blocks else {}
        check_isolation(self.of.values(), own, family.name)

    def run(self, call: StepCall) -> Any:
        change = self.of[call.branches[0]]
        blocks = call.family.blocks
        if blocks is not None and change.kind in blocks.own:
            layers = [layer.index for layer in find_layers(call.module, blocks, change)]
            if own := blocks.own[change.kind](call.module, layers):
                return call.plain(**own)
        with perturbed(call.module, call.family, change, call.arguments):
            return call.plain()


@contextlib.contextmanager
def perturbed(
    module: Any, family: Family, perturbation: Perturbation, arguments: Mapping[str, Any]
) -> Iterator[None]:
    """Perturb a denoiser while the block runs.

    `arguments` are those of the denoiser call, for the token grid. Every change is taken back on
    leaving, also after an exception, in the reverse order.

    Raises:
        ValueError: if the family declares no blocks, a layer does not exist, or an attention
            cannot be reached.
    """
    blocks = family.blocks
    if blocks is None:
        raise ValueError(
            f"{perturbation.rule} perturbs transformer blocks, and the family '{family.name}' "
            f"does not say where they are. Set Family(blocks=...), or use guidance.method: cfg."
        )
    kind = perturbation.kind
    with contextlib.ExitStack() as stack:
        for layer in find_layers(module, blocks, perturbation):
            if kind == "skip":
                if any(name.startswith("cp_input") for name, _ in hooks_of(layer.block)):
                    raise ValueError(
                        f"{perturbation.rule} leaves out {layer.name}, in which this model splits "
                        f"its tokens for enable_parallelism. Give later layers."
                    )
                skipped = functools.partial(_skipped, layer.block, blocks.returns)
                stack.enter_context(forward_replaced(layer, layer.block, skipped))
                continue
            grid = token_grid(family, module, arguments, layer.index)
            if kind == "drop":
                attention = layer.block.get_submodule(blocks.attention)
                num_video = prod(grid) // prod(token_split(module))
                dropped = functools.partial(_dropped, num_video, blocks.joint)
                stack.enter_context(forward_replaced(layer, attention, dropped))
                continue
            if token_split(module)[0] > 1:
                raise ValueError(
                    f"{perturbation.rule} changes the attention of all tokens, which this model "
                    f"takes in turns (ring_degree of enable_parallelism). Use ulysses_degree."
                )
            blurred = functools.partial(blurred_queries, grid, perturbation.sigma)
            change = own_values if kind == "identity" else blurred
            stack.enter_context(attending(layer, blocks, grid, change))
        yield


def own_values(call: AttentionCall) -> Tensor:
    """Every video token keeps its own value; text tokens attend as before."""
    text = None if call.text is None else call.run(call.query[..., call.text, :], call.text)
    return call.joined(call.by_head(call.value)[..., call.video, :], text)


def blurred_queries(grid: Grid, sigma: float, call: AttentionCall) -> Tensor:
    """Attention with the queries of the video tokens blurred over their grid."""
    video = blur_tokens(call.query[..., call.video, :], grid, sigma)
    text = None if call.text is None else call.query[..., call.text, :]
    return call.run(call.joined(video, text), slice(None))


def _dropped(
    num_video: int, joint: str | None, forward: Callable, *args: Any, **kwargs: Any
) -> Tensor | tuple[Tensor, ...]:
    """An attention that adds nothing to the video tokens.

    A pair is (video, text), as all attention modules of diffusers return it.
    """
    output = forward(*args, **kwargs)
    video, *rest = output if isinstance(output, tuple) else (output,)
    text = video.shape[-2] - num_video
    assert text >= 0, "all video tokens pass through one attention"
    assert joint is not None or text == 0, "video tokens and no others"
    assert text == 0 or not rest, "a pair holds the text tokens by themselves"
    start = text if joint == "before" else 0
    kept = video.clone()
    kept[..., start : start + num_video, :] = 0
    return (kept, *rest) if isinstance(output, tuple) else kept


def _skipped(
    block: Any, returns: tuple[str, ...], forward: Callable, *args: Any, **kwargs: Any
) -> Tensor | tuple[Tensor, ...]:
    """A block that hands on what it gets."""
    given = by_name(block, args, kwargs)
    kept = tuple(given[name] for name in returns)
    return kept[0] if len(kept) == 1 else kept
