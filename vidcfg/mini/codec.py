"""The mini model's video codec: causal, with a closed-form linear encoder and a small
convolutional decoder.

The first frame is coded alone in patches, every further group of four frames in space-time
patches, each projected on its principal components. Latent frame 0 is pixel frame 0; latent
frame k > 0 is the pixel frames 4 (k - 1) + 1 .. 4 k and touches no other: the decoder mixes
neighbouring places, never neighbouring times.
"""

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


@dataclass
class EncoderOutput(BaseOutput):
    """`latents` [B, C, F, h, w], about unit variance in every channel."""

    latents: Float[Tensor, "B C F h w"]


@dataclass
class DecoderOutput(BaseOutput):
    """`sample` [B, 3, T, H, W] in -1..1 for latents of real clips, not clamped."""

    sample: Float[Tensor, "B 3 T H W"]


class CausalVAE(ModelMixin, ConfigMixin):
    """Causal video autoencoder with stride `stride` in time and `patch` in space.

    Pixels are in -1..1. An untrained codec (no `fit`) projects on random orthonormal directions.
    The decoder adds a convolutional correction to the linear inverse; `decoder_width` 0 leaves
    it out.
    """

    @register_to_config
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

    @property
    def spatial_compression_ratio(self) -> int:
        return self.config.patch

    @property
    def temporal_compression_ratio(self) -> int:
        return self.config.stride

    def encode(self, x: Float[Tensor, "B 3 T H W"], return_dict: bool = True):
        """Code a clip of T = 1 + stride * (F - 1) frames; H and W are multiples of the patch.

        Raises:
            ValueError: if T, H or W does not fit.
        """
        _check_length(x.shape[2], self.stride)
        if x.shape[3] % self.patch or x.shape[4] % self.patch:
            raise ValueError(
                f"frames of {x.shape[3]} x {x.shape[4]} pixels do not divide into patches of "
                f"{self.patch}. "
                f"Use a height and width that are multiples of {self.patch}."
            )
        latents = [self.first.encode(self._patches(x[:, :, :1], 1))]
        if x.shape[2] > 1:
            latents.append(self.group.encode(self._patches(x[:, :, 1:], self.stride)))
        latents = rearrange(torch.cat(latents, dim=1), "b f h w c -> b c f h w")
        return EncoderOutput(latents=latents) if return_dict else (latents,)

    def decode(self, z: Float[Tensor, "B C F h w"], return_dict: bool = True):
        """Turn F latent frames into 1 + stride * (F - 1) pixel frames."""
        z = rearrange(z, "b c f h w -> b f h w c")
        frames = [self._decode("first", z[:, :1], 1)]
        if z.shape[1] > 1:
            frames.append(self._decode("group", z[:, 1:], self.stride))
        sample = torch.cat(frames, dim=2)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(self, sample: Float[Tensor, "B 3 T H W"], return_dict: bool = True):
        return self.decode(self.encode(sample).latents, return_dict=return_dict)

    @torch.no_grad()
    def fit(self, clips: Float[Tensor, "B 3 T H W"]) -> None:
        """Set both projections to the principal components of these clips (closed form)."""
        power = self.config.scaling_power
        self.first.fit(self._patches(clips[:, :, :1], 1), power)
        self.group.fit(self._patches(clips[:, :, 1:], self.stride), power)

    def _decode(self, name: str, z: Tensor, length: int) -> Tensor:
        x = getattr(self, name).decode(z)
        if name in self.refine:
            x = x + self.refine[name](z)
        return self._unpatch(x, length)

    def _patches(self, x: Tensor, length: int) -> Tensor:
        return rearrange(
            x, "b c (f t) (h p) (w q) -> b f h w (c t p q)", t=length, p=self.patch, q=self.patch
        )

    def _unpatch(self, x: Tensor, length: int) -> Tensor:
        return rearrange(
            x, "b f h w (c t p q) -> b c (f t) (h p) (w q)", t=length, p=self.patch, q=self.patch
        )


class _Projection(nn.Module):
    """latent = ((x - mean) @ basis) / spread, and its pseudo-inverse."""

    def __init__(self, size: int, channels: int):
        super().__init__()
        if channels > size:
            raise ValueError(f"{channels} latent channels from {size} values. Use at most {size}.")
        noise = torch.randn(
            size, channels, generator=torch.Generator().manual_seed(0), dtype=torch.float32
        )
        # There is no QR in half precision, which is the default dtype while a model is loaded.
        basis = torch.linalg.qr(noise)[0].to(torch.get_default_dtype())
        self.mean = nn.Parameter(torch.zeros(size), requires_grad=False)
        self.basis = nn.Parameter(basis, requires_grad=False)
        self.spread = nn.Parameter(torch.ones(channels), requires_grad=False)

    def encode(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.basis / self.spread

    def decode(self, z: Tensor) -> Tensor:
        return (z * self.spread) @ self.basis.T + self.mean

    def fit(self, patches: Tensor, power: float) -> None:
        """`spread` is the standard deviation to the given power, times one factor that makes the
        mean latent variance 1: a power of 1 is full whitening, below 1 leaves fine components
        smaller than coarse ones.
        """
        x = patches.flatten(0, -2).double()
        self.mean.copy_(x.mean(0))
        x = x - self.mean
        variance, vectors = torch.linalg.eigh(x.T @ x / len(x))
        keep = self.basis.shape[1]
        variance, vectors = variance.flip(0)[:keep], vectors.flip(1)[:, :keep]
        std = variance.clamp_min(1e-10).sqrt()
        spread = std**power
        self.basis.copy_(vectors)
        self.spread.copy_(spread * (std / spread).square().mean().sqrt())


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


def valid_lengths(num_frames: int, stride: int) -> tuple[int, int]:
    """The two nearest clip lengths 1 + stride * n around `num_frames` (the same twice if it is
    one).
    """
    below = max(0, (num_frames - 1) // stride) * stride + 1
    return below, below if below == num_frames else below + stride


def _check_length(num_frames: int, stride: int) -> None:
    below, above = valid_lengths(num_frames, stride)
    if below != num_frames:
        raise ValueError(
            f"num_frames is {num_frames}, but this VAE makes {stride}k + 1 frames. "
            f"Use {below} or {above}."
        )
