"""Frequency-decoupled guidance, over space and, separately, over time."""

from typing import Annotated, Any

import numpy as np

from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import Gram
from vidcfg.guidance.rule import AgainstUncond, Rows, Vectors, rule
from vidcfg.guidance.shapes import Float64
from vidcfg.settings.base import Finding, Number, Range

Cutoff = Annotated[float, Range(0, 1, above=True)]


@rule("freq")
class Freq(AgainstUncond):
    """Guidance with its own gain for coarse and fine parts of the difference.

        d = cond - uncond
        d = space_high d + (space_low - space_high) low_HW(d)
        d = time_high d + (time_low - time_high) low_F(d)
        guided_f = cond_f + (strength_f - 1) d_f

    `low` keeps the coarse part: mode k of n of the cosine transform along the axis is multiplied
    by 2^-(k / (cutoff n))^2, which is 1 for a constant and a half at `cutoff`. Its ends are
    mirrored, so the first and the last frame are no neighbours; a clip of one frame is all low.
    A gain of 0 leaves its band at `cond`. All gains 1 are plain guidance, bit for bit (off).

    Raises:
        ValueError: for gains over space in a layout of tokens whose height is not known.

    Formula: c + (s - 1) d', d' = d = c - u with a gain for each band
    Off: s = 1; gains of 1 are `cfg`
    Use: guide layout and detail, or motion and its flicker, apart
    Source: Sadat et al. 2025, arXiv:2506.19713, with cosine modes in place of a pyramid.
    """

    space_low: Number = 1.0
    space_high: Number = 1.0
    time_low: Number = 1.0
    time_high: Number = 1.0
    space_cutoff: Cutoff = 0.25
    time_cutoff: Cutoff = 0.25

    def findings(self):
        for axis in ("space", "time"):
            gains = {getattr(self, f"{axis}_low"), getattr(self, f"{axis}_high")}
            cutoff = f"{axis}_cutoff"
            if gains == {1.0} and getattr(self, cutoff) != type(self).model_fields[cutoff].default:
                what = f"has no effect: {axis}_low and {axis}_high are 1."
                yield Finding((cutoff,), what, is_error=False)

    @property
    def compares(self) -> bool:
        return not self.space_low == self.space_high == self.time_low == self.time_high == 1

    @property
    def base(self) -> str:
        return "cond" if self.compares else "uncond"

    @property
    def extras(self) -> tuple[str, ...]:
        return ("bands",) if self.compares else ()

    def extra(self, vectors: Vectors) -> dict[str, Any]:
        change = vectors.difference("cond", "uncond")
        if (self.space_low, self.space_high) != (1, 1):
            low, high, cutoff = self.space_low, self.space_high, self.space_cutoff
            flat = change.ndim == 4
            frames = _unpacked(change, vectors.grid) if flat else change
            axes = (2, 3) if flat else (3, 4)
            frames = high * frames + (low - high) * low_pass(frames, axes, cutoff)
            change = frames.reshape(change.shape)
        if (self.time_low, self.time_high) != (1, 1):
            low, high = self.time_low, self.time_high
            change = high * change + (low - high) * low_pass(change, (1,), self.time_cutoff)
        return {"bands": change}

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        if not self.compares:
            return super().combination(gram, strength, weight)
        is_off = self.is_off(strength, weight)
        return Combination("cond", None, {}, is_off, extra_BF={"bands": strength - 1})


def _unpacked(tokens: Any, grid: tuple[int, int] | None) -> Any:
    """(B, F, N, C) tokens as (B, F, H, W, C)."""
    if grid is None or grid[0] * grid[1] != tokens.shape[2]:
        raise ValueError(
            "guidance.method freq cannot tell the height and width of this model's "
            f"{tokens.shape[2]} tokens per frame. Use time_low and time_high alone."
        )
    return tokens.unflatten(2, grid)


def low_pass_matrix(size: int, cutoff: float) -> Float64[np.ndarray, "n n"]:
    """The symmetric matrix that takes the coarse part of `size` values in a row."""
    k = np.arange(size)
    modes = np.cos(np.pi * k[:, None] * (2 * k[None] + 1) / (2 * size))
    modes *= np.where(k == 0, 1.0, np.sqrt(2.0))[:, None] / np.sqrt(size)
    return modes.T @ (0.5 ** (k / (cutoff * size)) ** 2 * modes.T).T


def low_pass(frames: Any, axes: tuple[int, ...], cutoff: float) -> Any:
    """The coarse part of a tensor along some axes, in its own dtype."""
    import torch

    with torch.autocast(frames.device.type, enabled=False):
        for axis in axes:
            matrix = torch.from_numpy(low_pass_matrix(frames.shape[axis], cutoff))
            matrix = matrix.to(frames.device, frames.dtype)
            frames = (frames.movedim(axis, -1) @ matrix).movedim(-1, axis)
    return frames
