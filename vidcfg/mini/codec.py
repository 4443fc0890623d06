"""The mini model's video codec: causal, a linear encoder and a small convolutional decoder.

The first frame is coded alone in patches, every further group of four frames in space-time
patches, each projected on its principal components. Latent frame 0 is pixel frame 0; latent
frame k > 0 is the pixel frames 4 (k - 1) + 1 .. 4 k and touches no other: the decoder mixes
neighbouring places, never neighbouring times.
"""

from collections import namedtuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vidcfg.mini.parts import Part, Sample, keeps_arguments

Encoded = namedtuple("Encoded", "latents")
"""What the codec makes of a clip: a tuple of one."""


class CausalVAE(Part):
    """Causal video autoencoder with stride `stride` in time and `patch` in space.

    Pixels are in -1..1; decoded ones are not clamped. Latents of real clips have about unit
    variance in every channel. An untrained codec projects on random orthonormal
    directions. The decoder adds a convolutional correction to the linear inverse;
    `decoder_width` 0 leaves it out.
    """

    @keeps_arguments
    def __init__(
        self,
        latent_channels: int = 16,
        stride: int = 4,
        patch: int = 4,
        scaling_power: float = 0.8,
        decoder_width: int = 0,
        decoder_layers: int = 3,
    ):
        super().__init__()
        self.stride, self.patch = stride, patch
        sizes = {"first": 3 * patch * patch, "group": 3 * stride * patch * patch}
        self.first = _Projection(sizes["first"], latent_channels)
        self.group = _Projection(sizes["group"], latent_channels)
        self.refine = nn.ModuleDict()
        if decoder_width:
            for name, size in sizes.items():
                self.refine[name] = _Refine(latent_channels, decoder_width, decoder_layers, size)

    def encode(self, x: Float[Tensor, "B 3 T H W"]) -> Encoded:
        """Code T = 1 + stride * (F - 1) frames as `latents` [B, C, F, H / patch, W / patch].

        Raises:
            ValueError: if T, H or W does not fit.
        """
        check_length(x.shape[2], self.stride)
        if x.shape[3] % self.patch or x.shape[4] % self.patch:
            raise ValueError(
                f"frames of {x.shape[3]} x {x.shape[4]} pixels do not divide into patches of "
                f"{self.patch}. Use a height and width that are multiples of {self.patch}."
            )
        latents = [self.first.encode(self.patches(x[:, :, :1], 1))]
        if x.shape[2] > 1:
            latents.append(self.group.encode(self.patches(x[:, :, 1:], self.stride)))
        return Encoded(rearrange(torch.cat(latents, dim=1), "b f h w c -> b c f h w"))

    def decode(self, z: Float[Tensor, "B C F h w"]) -> Sample:
        """Turn F latent frames into `sample`, [B, 3, T = 1 + stride * (F - 1), H, W]."""
        z = rearrange(z, "b c f h w -> b f h w c")
        frames = [self._decode("first", z[:, :1], 1)]
        if z.shape[1] > 1:
            frames.append(self._decode("group", z[:, 1:], self.stride))
        return Sample(torch.cat(frames, dim=2))

    def forward(self, sample: Float[Tensor, "B 3 T H W"]) -> Sample:
        return self.decode(self.encode(sample).latents)

    def _decode(self, name: str, z: Tensor, length: int) -> Tensor:
        x = getattr(self, name).decode(z)
        if name in self.refine:
            x = x + self.refine[name](z)
        p = self.patch
        return rearrange(x, "b f h w (c t p q) -> b c (f t) (h p) (w q)", t=length, p=p, q=p)

    def patches(self, x: Tensor, length: int) -> Tensor:
        """Space-time patches [B, F, h, w, values] of clips, `length` frames in each."""
        p = self.patch
        return rearrange(x, "b c (f t) (h p) (w q) -> b f h w (c t p q)", t=length, p=p, q=p)


class _Projection(nn.Module):
    """latent = ((x - mean) @ basis) / spread, and its pseudo-inverse."""

    def __init__(self, size: int, channels: int):
        super().__init__()
        if channels > size:
            raise ValueError(f"{channels} latent channels from {size} values. Use at most {size}.")
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(size, channels, generator=generator)
        self.mean = nn.Parameter(torch.zeros(size), requires_grad=False)
        self.basis = nn.Parameter(torch.linalg.qr(noise)[0], requires_grad=False)
        self.spread = nn.Parameter(torch.ones(channels), requires_grad=False)

    def encode(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.basis / self.spread

    def decode(self, z: Tensor) -> Tensor:
        return (z * self.spread) @ self.basis.T + self.mean


class _Refine(nn.Module):
    """Residual 3 x 3 convolutions over each latent frame alone; starts as zero."""

    def __init__(self, channels: int, width: int, layers: int, size: int):
        super().__init__()
        self.proj_in = nn.Conv2d(channels, width, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(layers))
        self.proj_out = nn.Conv2d(width, size, 1)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, z: Float[Tensor, "B F h w C"]) -> Float[Tensor, "B F h w V"]:
        x = self.proj_in(rearrange(z, "b f h w c -> (b f) c h w"))
        for layer in self.layers:
            x = x + layer(nn.functional.silu(x))
        x = self.proj_out(nn.functional.silu(x))
        return rearrange(x, "(b f) v h w -> b f h w v", b=z.shape[0])


def check_length(num_frames: int, stride: int) -> None:
    """Raise ValueError, with the two nearest lengths, unless there is an n: 1 + stride * n."""
    below = max(0, (num_frames - 1) // stride) * stride + 1
    if below != num_frames:
        raise ValueError(
            f"num_frames is {num_frames}, but this VAE makes {stride}k + 1 frames. "
            f"Use {below} or {below + stride}."
        )
