"""Random predictions in every latent layout, and a way back that is written by hand."""

import numpy as np
import torch

B, F, C, H, W = 2, 5, 3, 4, 6
LAYOUTS = ("BCFHW", "BFCHW", "tokens")
SURFACE_BF = np.array([[7.3, 1.0, 0.0, 2.5, 0.4], [1.0, 4.2, 3.0, 0.0, 9.1]])
WEIGHT_BF = np.array([[1.0, 0.0, 0.7, 0.5, 0.1], [0.0, 0.6, 0.5, 1.0, 0.9]])


def video(seed: int, *, mean: float = 0.0, batch: int = B) -> torch.Tensor:
    """(B, F, C, H, W) float32 whose spread differs between frames."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, F, C, H, W, generator=generator)
    return noise * torch.linspace(0.5, 2.0, F)[:, None, None, None] + mean


def into(layout: str, frames: torch.Tensor) -> torch.Tensor:
    """A (B, F, C, H, W) tensor in the model's layout, contiguous."""
    if layout == "BCFHW":
        return frames.permute(0, 2, 1, 3, 4).contiguous()
    if layout == "BFCHW":
        return frames.contiguous()
    rows = [
        torch.stack([f[:, y, x] for y in range(H) for x in range(W)]) for v in frames for f in v
    ]
    return torch.cat(rows).reshape(len(frames), F * H * W, C)


def out_of(layout: str, latents: torch.Tensor) -> torch.Tensor:
    """The inverse of `into`."""
    if layout == "BCFHW":
        return latents.permute(0, 2, 1, 3, 4)
    if layout == "BFCHW":
        return latents
    return latents.reshape(len(latents), F, H, W, C).permute(0, 1, 4, 2, 3)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bit patterns, so that -0.0 and 0.0 differ."""
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32}[tensor.itemsize])
