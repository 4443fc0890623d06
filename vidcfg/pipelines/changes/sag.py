"""Self-attention guidance: latents blurred where the model looks most, and the way back."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.prediction import convert
from vidcfg.guidance.rules.sag import Sag
from vidcfg.pipelines.changes.attention import AttentionCall, attending
from vidcfg.pipelines.changes.base import ModelChange, StepCall, first
from vidcfg.pipelines.changes.layers import blur_matrix, find_layers, token_grid, token_split
from vidcfg.pipelines.family import Family

_CHUNK = 1024


class DegradedPass(ModelChange, setting=Sag):
    """Passes on degraded latents, made from what `cond` predicted and attended to."""

    def begin(self) -> None:
        self.seen: dict[int, tuple[Tensor, dict]] = {}
        """Sample -> its prediction of `cond` on this step, and the attention by layers."""
        if token_split(self.start.module) != (1, 1):
            raise ValueError(
                "sag reads the attention of all tokens, which this model splits over processes "
                "(enable_parallelism). Use guidance.method: pag."
            )

    @property
    def touches(self) -> dict[str, str]:
        return {change.kind: "reads attention" for change in self.of.values()}

    def watch(self, call: StepCall, run: Callable[[], Any]) -> Any:
        if "cond" not in call.branches:
            return run()
        # One degradation for each layer whose attention some sample needs on this step.
        steps = (steps[call.inputs.step] for steps in self.start.samples.steps)
        needed = {branch for step in steps for branch in step.branches}
        wanted = {change.layers: change for b, change in self.of.items() if b in needed}
        if not wanted:
            return run()
        with contextlib.ExitStack() as stack:
            maps = {}
            for layers, change in wanted.items():
                look = watched(call.module, call.family, change, call.arguments)
                maps[layers] = stack.enter_context(look)
            outputs = run()
        for row, (branch, sample) in enumerate(zip(call.branches, call.samples)):
            if branch == "cond":
                own = slice(row, row + 1)
                rows = {layers: torch.cat(seen)[own] for layers, seen in maps.items()}
                self.seen[sample] = (first(outputs)[own], rows)
        return outputs

    def run(self, call: StepCall) -> Any:
        change, space = self.of[call.branches[0]], _space(call)
        noisy, rest = call.noisy()
        cond = torch.cat([self.seen[sample][0] for sample in call.samples])
        maps = torch.cat([self.seen[sample][1][change.layers] for sample in call.samples])
        latents = degraded_latents(noisy, cond, maps, change, space)
        hidden = torch.cat([latents, rest], dim=call.family.channel_axis)
        outputs = call.plain(**{call.family.hidden: hidden})
        prediction = seen_from(noisy, latents, first(outputs), space)
        return prediction if isinstance(outputs, Tensor) else (prediction, *outputs[1:])


@dataclass(frozen=True)
class Space:
    """Where a step's predictions live: their layout, their kind, the noise level.

    `sizes` are the latent frames, rows and columns.
    """

    layout: FrameLayout
    sizes: tuple[int, int, int]
    kind: str
    level: tuple[float, float]

    def volume(self, latents: Tensor) -> Float[Tensor, "B F C H W"]:
        """Latents of the model's layout as a volume."""
        frames = self.layout.frames(latents, self.sizes[0])
        if self.layout.axes == "tokens":
            return frames.unflatten(2, self.sizes[1:]).movedim(-1, 2)
        return frames

    def restore(self, volume: Float[Tensor, "B F C H W"]) -> Tensor:
        """The inverse of `volume`."""
        if self.layout.axes == "tokens":
            volume = volume.movedim(2, -1).flatten(2, 3)
        return self.layout.restore(volume)

    def change(self, latents: Tensor, noisy: Tensor, before: str, after: str) -> Tensor:
        """A prediction of one kind as one of another."""
        alpha, sigma = self.level
        return convert(latents, noisy, before, after, alpha=alpha, sigma=sigma)


def _space(call: StepCall) -> Space:
    level = call.inputs.known_level("guidance.method: sag", "guidance.method: pag")
    sizes = call.arguments[call.family.hidden].shape[-2:]
    if call.family.layout == "tokens":
        sizes = token_grid(call.family, call.module, call.arguments)[1:]
    sizes = (call.inputs.num_frames, *sizes)
    return Space(call.family.frame_layout, sizes, call.inputs.prediction, level)


def degraded_latents(
    noisy: Tensor,
    cond: Tensor,
    saliency: Float[Tensor, "B F2 H2 W2"],
    setting: Sag,
    space: Space,
) -> Tensor:
    """alpha x0' + sigma eps: the estimate of `cond`, blurred where it is salient, noised again.

    `noisy` holds the channels of a prediction alone. On pure noise it is given back as it is.
    """
    alpha, sigma = space.level
    if alpha == 0:
        return noisy
    x, p = noisy.float(), cond.float()
    x0 = space.volume(space.change(p, x, space.kind, "sample"))
    # Salient: tokens that receive more than `threshold` times the mean attention.
    mask = (saliency > setting.threshold).float()[:, None]
    mask = interpolate(mask, size=space.sizes, mode="nearest").movedim(1, 2) > 0.5
    # Each frame is blurred; weights are normalised inside the frame at its edges.
    rows, columns = (blur_matrix(n, setting.blur, x0.device) for n in x0.shape[-2:])
    with torch.autocast(x0.device.type, enabled=False):
        x0 = torch.where(mask, rows @ x0 @ columns.T, x0)
    eps = space.change(p, x, space.kind, "epsilon")
    return (alpha * space.restore(x0) + sigma * eps).to(noisy.dtype)


def seen_from(noisy: Tensor, degraded: Tensor, prediction: Tensor, space: Space) -> Tensor:
    """The prediction that has, at `noisy`, the noise that was predicted at `degraded`."""
    if space.level[0] == 0:
        return prediction
    eps = space.change(prediction.float(), degraded.float(), space.kind, "epsilon")
    return space.change(eps, noisy.float(), "epsilon", space.kind).to(prediction.dtype)


@contextlib.contextmanager
def watched(
    module: Any, family: Family, setting: Sag, arguments: Mapping[str, Any]
) -> Iterator[list[Tensor]]:
    """Collect what `received` tells of one layer while the block runs, as rows [B, F, H, W].

    The model computes as before.

    Raises:
        ValueError: if the family declares no blocks that see whole frames, the layer does not
            exist or is not a single one, or its attention cannot be reached.
    """
    if family.blocks is None or family.hidden == "sample":
        raise ValueError(
            f"{setting.kind} reads the attention of a video transformer, which the family "
            f"'{family.name}' does not have. Use guidance.method: pag."
        )
    layer, *further = find_layers(
        module, family.blocks, Perturbation("identity", setting.layers, setting.kind)
    )
    if further:
        raise ValueError(f"{setting.kind} reads one layer. Give one: layers: [{layer.index}].")
    grid, seen = token_grid(family, module, arguments, layer.index), []

    def watch(call: AttentionCall) -> Tensor:
        seen.append(received(call).unflatten(-1, grid))
        return call.run(call.query, slice(None))

    with attending(layer, family.blocks, grid, watch):
        yield seen


def received(call: AttentionCall) -> Float[Tensor, "B N"]:
    """The attention that each video token gets from all video tokens, mean over heads.

    Every query gives 1 away, part of it to text tokens in joint attention; the result is divided
    by its mean over the tokens. Computed in float32 over chunks of queries, so that no map of all
    pairs is held.
    """
    keys = call.by_head(call.key.float())
    total = 0.0
    with torch.autocast(keys.device.type, enabled=False):
        for start in range(call.video.start, call.video.stop, _CHUNK):
            rows = slice(start, min(start + _CHUNK, call.video.stop))
            scores = call.query[..., rows, :].float() @ keys.transpose(-1, -2)
            scores = scores * keys.shape[-1] ** -0.5
            if (mask := call.mask) is not None:
                mask = mask[..., rows, :] if mask.shape[-2] > 1 else mask
                is_kept = mask.dtype == torch.bool
                scores = scores.masked_fill(~mask, -torch.inf) if is_kept else scores + mask
            total = total + scores.softmax(dim=-1)[..., call.video].sum(dim=-2)
    mass = total.mean(dim=1)
    return mass / mass.mean(dim=-1, keepdim=True)
