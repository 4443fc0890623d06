"""Where the frames are in a latent tensor: one view with the frame axis second, whatever the model."""

from dataclasses import dataclass
from math import prod

from torch import Tensor


@dataclass(frozen=True)
class FrameLayout:
    """How a model lays out a batch of latent videos.

    | axes     | tensor                       | models                         |
    |----------|------------------------------|--------------------------------|
    | `BCFHW`  | (B, C, F, H, W)              | Wan, HunyuanVideo, Mochi, mini |
    | `BFCHW`  | (B, F, C, H, W)              | CogVideoX, SVD                 |
    | `tokens` | (B, F * N, C), frame-major   | LTX                            |
    """

    axes: str

    def __post_init__(self):
        if self.axes not in ("BCFHW", "BFCHW", "tokens"):
            raise ValueError(
                f"unknown latent layout {self.axes!r}. Use 'BCFHW', 'BFCHW' or 'tokens'."
            )

    def num_frames(self, latents: Tensor) -> int | None:
        """The number of latent frames, or None where the tensor alone does not tell (tokens)."""
        return {"BCFHW": latents.shape[2], "BFCHW": latents.shape[1]}.get(self.axes)

    def frames(self, latents: Tensor, num_frames: int) -> Tensor:
        """A view of `latents` with axes (B, F, ...): no copy is made.

        Raises:
            ValueError: if the tensor does not have `num_frames` frames in this layout.
        """
        if self.axes == "BCFHW":
            view = latents.movedim(2, 1)
        elif self.axes == "BFCHW":
            view = latents
        elif latents.shape[1] % num_frames == 0:
            return latents.unflatten(1, (num_frames, -1))
        else:
            raise ValueError(
                f"{latents.shape[1]} tokens do not divide into {num_frames} latent frames."
            )
        if view.shape[1] != num_frames:
            raise ValueError(
                f"expected {num_frames} latent frames, the tensor has {view.shape[1]}."
            )
        return view

    def restore(self, frames: Tensor) -> Tensor:
        """The inverse of `frames`: back to the model's own axes, contiguous."""
        if self.axes == "BCFHW":
            return frames.movedim(1, 2).contiguous()
        if self.axes == "tokens":
            return frames.flatten(1, 2)
        return frames.contiguous()


def per_frame(values_BF: Tensor, like: Tensor) -> Tensor:
    """`values_BF` shaped to broadcast over a (B, F, ...) view."""
    return values_BF.reshape(*values_BF.shape, *([1] * (like.ndim - 2)))


def elements_per_frame(frames: Tensor) -> int:
    """How many numbers one frame of a (B, F, ...) view holds."""
    return prod(frames.shape[2:])
