"""A denoiser with an adapter that reads the strength of every frame: guidance in one pass."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidcfg.guidance.rules.distilled import Distilled
from vidcfg.mini import STRENGTH_ADAPTER
from vidcfg.pipelines.changes.base import ModelChange, StepCall
from vidcfg.pipelines.changes.layers import Layer, all_layers, forward_replaced, token_grid
from vidcfg.pipelines.family import Blocks, Family

STRENGTH = "strength_of_frames"
"""What the engine calls the further input of the student's branch."""


class StrengthAdapter(nn.Module):
    """A bottleneck behind every transformer block, gated by the strength of a token's frame.

        h + up(silu(down(norm(h))) * gate(s ** power))

    The gate has no bias and is exactly 0 at strength 1, so that the model is then its own. A new
    adapter adds nothing at any strength.

    Args:
        num_layers: blocks of the denoiser.
        width: channels of their video tokens.
        rank: channels of the bottleneck.
        power: makes up for what a student shrinks of its teacher's guidance; 1 is off.
    """

    def __init__(self, num_layers: int, width: int, rank: int = 64, power: float = 1.0):
        super().__init__()
        self.size = {"num_layers": num_layers, "width": width, "rank": rank}
        self.power = power
        self.down = nn.ModuleList(nn.Linear(width, rank) for _ in range(num_layers))
        self.up = nn.ModuleList(nn.Linear(rank, width, bias=False) for _ in range(num_layers))
        self.gate = nn.ModuleList(
            nn.Sequential(
                nn.Linear(4, rank, bias=False), nn.SiLU(), nn.Linear(rank, rank, bias=False)
            )
            for _ in range(num_layers)
        )
        for layer in self.up:
            nn.init.zeros_(layer.weight)

    def forward(
        self, index: int, tokens: Float[Tensor, "B N D"], strength: Float[Tensor, "B F"]
    ) -> Float[Tensor, "B N D"]:
        """The tokens behind block `index`; they run frame by frame."""
        x = nn.functional.layer_norm(tokens.float(), tokens.shape[-1:])
        x = nn.functional.silu(self.down[index](x))
        gate = self.gate[index](of_strength(strength.sign() * strength.abs() ** self.power))
        x = x * gate.repeat_interleave(tokens.shape[1] // strength.shape[1], dim=1)
        return tokens + self.up[index](x).to(tokens.dtype)

    def save(self, path: Path) -> None:
        """One file of weights, in half precision."""
        from safetensors.torch import save_file

        weights = {name: w.half().contiguous() for name, w in self.state_dict().items()}
        told = self.size | {"power": self.power}
        save_file(weights, path, {name: str(value) for name, value in told.items()})

    @classmethod
    def load(cls, path: str | Path) -> "StrengthAdapter":
        """Read a file that `save` wrote; `mini` is the embedded model's.

        Raises:
            ValueError: there is no such file, or it holds something else.
        """
        from safetensors import SafetensorError, safe_open

        path = STRENGTH_ADAPTER if path == "mini" else path
        try:
            with safe_open(path, framework="pt") as file:
                told = dict(file.metadata() or {})
                power = float(told.pop("power", 1.0))
                made = cls(**{name: int(value) for name, value in told.items()}, power=power)
                made.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - safe_open is no dict
        except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{path} is no adapter of a distilled model ({error}). Make one with: "
                "python scripts/distill.py"
            ) from None
        return made.eval().requires_grad_(False)


def of_strength(strength: Float[Tensor, "B F"]) -> Float[Tensor, "B F 4"]:
    """Four odd functions of strength - 1, all of them 0 at strength 1."""
    by = strength.float() - 1
    log = by.sign() * by.abs().log1p()
    return torch.stack([torch.tanh(by), log, (2 * log).sin(), log * log.abs() / 2], dim=-1)


@contextlib.contextmanager
def adapted(
    module: Any,
    family: Family,
    adapter: StrengthAdapter,
    strength: Float[Tensor, "B F"],
    arguments: Mapping[str, Any],
) -> Iterator[None]:
    """The denoiser with an adapter behind its blocks while the block runs.

    `arguments` are those of the denoiser call, for the token grid.

    Raises:
        ValueError: if the family declares no blocks, or the adapter is of another model.
    """
    if family.blocks is None:
        raise ValueError(
            f"distilled adapts transformer blocks, and the family '{family.name}' does not say "
            f"where they are. Set Family(blocks=...), or use guidance.method: cfg."
        )
    layers = all_layers(module, family.blocks)
    size = adapter.size
    if size["num_layers"] != len(layers):
        raise ValueError(
            f"the adapter is for {size['num_layers']} blocks, and this {type(module).__name__} "
            f"has {len(layers)}. Take the one that was made of this model."
        )
    with contextlib.ExitStack() as stack:
        for layer in layers:
            grid = token_grid(family, module, arguments, layer.index)
            change = functools.partial(_adapted, layer, adapter, strength, grid, family.blocks)
            stack.enter_context(forward_replaced(layer, layer.block, change))
        yield


def _adapted(
    layer: Layer,
    adapter: StrengthAdapter,
    strength: Tensor,
    grid: tuple,
    blocks: Blocks,
    forward: Callable,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """The outputs of a block, of which the video tokens go through the adapter."""
    output = forward(*args, **kwargs)
    tokens = tokens_in(blocks, output)
    # The frames have to be those of the strengths, and no other tokens among theirs.
    wanted = (strength.shape[1], prod(grid), adapter.size["width"])
    if (grid[0], *tokens.shape[1:]) != wanted:
        raise ValueError(
            f"distilled: block {layer.name} returns {tuple(tokens.shape)} for a grid {grid}, and "
            f"the adapter takes {wanted[2]} channels of {wanted[0]} frames with no token of text "
            f"among them. Use guidance.method: cfg."
        )
    changed = adapter(layer.index, tokens, strength)
    if not isinstance(output, tuple):
        return changed
    return tuple(changed if part is tokens else part for part in output)


def tokens_in(blocks: Blocks, output: Any) -> Tensor:
    """The video tokens among what a block returns."""
    if not isinstance(output, tuple):
        return output
    named = "hidden_states" in blocks.returns
    return output[blocks.returns.index("hidden_states") if named and len(output) > 1 else 0]


class StudentPass(ModelChange, setting=Distilled):
    """The pass of the model with an adapter, at the strengths of each sample's frames."""

    def begin(self) -> None:
        self.adapters = {
            branch: StrengthAdapter.load(student.adapter).to(self.start.hidden.device)
            for branch, student in self.of.items()
        }
        self.taught: str | None = None

    def inputs(self, branch: str, step: int) -> dict[str, Tensor]:
        if branch not in self.of:
            return {}
        # Samples that do not ask for this branch never read their row.
        strength_BKF = self.start.samples.strength_BKF
        rows = np.ones((len(strength_BKF), strength_BKF[0].shape[-1]))
        for each in self.asked:
            if each.setting.branch == branch:
                rows[each.sample] = np.atleast_2d(strength_BKF[each.sample][step])[each.place]
        return {STRENGTH: torch.as_tensor(rows, dtype=torch.float32).to(self.start.hidden.device)}

    def run(self, call: StepCall) -> Any:
        self.taught = self.taught or call.attribute
        if call.attribute != self.taught:
            raise ValueError(
                f"this pipeline has several models ({self.taught}, {call.attribute}), and an "
                "adapter is of one. Use guidance.method: cfg."
            )
        adapter, strength = self.adapters[call.branches[0]], call.beside[STRENGTH]
        with adapted(call.module, call.family, adapter, strength, call.arguments):
            return call.plain()
