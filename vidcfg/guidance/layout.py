"""Where the frames are in a latent tensor: a view with the frame axis second for every model.

Works on tensors through their own methods and imports no torch, as all of the engine that a cost
estimate needs.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

_MOVED = {"BCFHW": (2, 1), "BFCHW": (1, 1), "BFHWC": (-1, 2)}
"""The axis that moves for a view (B, F, C, H, W), and where to."""

SMALL = 2**15
"""Elements that a CPU sums in one thread, so that no bit depends on how many samples they are."""
MOST = 3
"""Vectors beside the base that compiled loops and kernels take."""


@dataclass(frozen=True)
class FrameLayout:
    """How a model lays out a batch of latent videos.

    | axes     | tensor                       | models                         |
    |----------|------------------------------|--------------------------------|
    | `BCFHW`  | (B, C, F, H, W)              | Wan, HunyuanVideo, Mochi, mini |
    | `BFCHW`  | (B, F, C, H, W)              | CogVideoX, SVD                 |
    | `BFHWC`  | (B, F, H, W, C)              | Kandinsky 5                    |
    | `tokens` | (B, F * N, C), frame-major   | LTX, Flux (one frame)          |
    | `BCHW`   | (B, C, H, W), one frame      | Stable Diffusion               |

    Raises:
        ValueError: for other axes.
    """

    axes: str

    def __post_init__(self):
        known = (*_MOVED, "tokens", "BCHW")
        if self.axes not in known:
            raise ValueError(
                f"unknown latent layout {self.axes!r}. Use one of: {', '.join(known)}."
            )

    def num_frames(self, latents: Any) -> int | None:
        """The number of latent frames, or None where the tensor alone does not tell (tokens)."""
        if self.axes in _MOVED:
            return latents.shape[self.axes.index("F")]
        return None if self.axes == "tokens" else 1

    def frames(self, latents: Any, num_frames: int) -> Any:
        """A view of `latents` with axes (B, F, ...): no copy is made.

        Raises:
            ValueError: if the tensor does not have `num_frames` frames in this layout.
        """
        if self.axes == "tokens":
            if latents.shape[1] % num_frames:
                raise ValueError(
                    f"{latents.shape[1]} tokens do not divide into {num_frames} latent frames."
                )
            return latents.unflatten(1, (num_frames, -1))
        if self.num_frames(latents) != num_frames:
            raise ValueError(
                f"expected {num_frames} latent frames, the tensor has {self.num_frames(latents)}."
            )
        if self.axes == "BCHW":
            return latents.unsqueeze(1)
        return latents.movedim(*_MOVED[self.axes])

    def grid(self, latents: Any) -> tuple[int, int] | None:
        """Height and width of a frame, or None where the tensor does not tell (tokens)."""
        if self.axes == "BFHWC":
            return tuple(latents.shape[2:4])
        return None if self.axes == "tokens" else tuple(latents.shape[-2:])

    def restore(self, frames: Any) -> Any:
        """The inverse of `frames`: back to the model's own axes, contiguous."""
        if self.axes in _MOVED:
            return frames.movedim(*reversed(_MOVED[self.axes])).contiguous()
        return (frames.flatten(1, 2) if self.axes == "tokens" else frames.squeeze(1)).contiguous()


def per_frame(values_BF: Any, like: Any) -> Any:
    """`values_BF` shaped to broadcast over a (B, F, ...) view."""
    return values_BF.reshape(*values_BF.shape, *([1] * (like.ndim - 2)))


def elements_per_frame(frames: Any) -> int:
    """How many numbers one frame of a (B, F, ...) view holds."""
    return prod(frames.shape[2:])
