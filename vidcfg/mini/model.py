"""ST-DiT: a spatio-temporal diffusion transformer for the flow velocity of video latents."""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Real
from torch import Tensor, nn

from vidcfg.mini.attention import Attention, check_backend, rotary_table
from vidcfg.mini.parts import Part, Sample, keeps_arguments
from vidcfg.mini.text import pooled

LAYOUTS = ("full", "factorised")

_ROWS = {"all": "b (f s) d", "space": "(b f) s d", "time": "(b s) f d"}
"""How attention sees f frames of s places: all at once, frame by frame, or place by place."""


class STDiT(Part):
    """Transformer over the latent positions of a video, one token per position.

    Every block is self-attention, cross-attention to the text and an MLP. With `attention: full`
    each block attends over all positions; with `factorised` even blocks attend within a frame
    and odd blocks attend along time at one place. Time and pooled text scale, shift and gate
    each block (adaLN-zero: a model at its start returns zeros). Positions enter through rotary
    angles alone, so any F, H, W can be given.
    """

    @keeps_arguments
    def __init__(
        self,
        in_channels: int = 16,
        width: int = 192,
        num_layers: int = 8,
        num_heads: int = 3,
        mlp_ratio: float = 3.0,
        text_width: int = 128,
        attention: str = "full",
        attention_backend: str = "sdpa",
    ):
        super().__init__()
        if attention not in LAYOUTS:
            raise ValueError(f"attention is '{attention}'. Use one of: {', '.join(LAYOUTS)}.")
        check_backend(attention_backend)
        self.proj_in = nn.Linear(in_channels, width)
        self.time_embed = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.pool_embed = nn.Linear(text_width, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.transformer_blocks = nn.ModuleList(
            _Block(width, num_heads, mlp_ratio, text_width, attention_backend)
            for _ in range(num_layers)
        )
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation_out = nn.Linear(width, 2 * width)
        self.proj_out = nn.Linear(width, in_channels)
        for layer in (self.modulation, self.modulation_out, self.proj_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def set_attention_backend(self, backend: str) -> None:
        """Choose the backend of every attention; ValueError if this device cannot run it."""
        check_backend(backend, self.device)
        for module in self.modules():
            if isinstance(module, Attention):
                module.backend = backend

    def forward(
        self,
        hidden_states: Float[Tensor, "B C F H W"],
        timestep: Real[Tensor, " B"],
        encoder_hidden_states: Float[Tensor, "B L E"],
        encoder_attention_mask: Bool[Tensor, "B L"] | None = None,
        return_dict: bool = True,
    ):
        """Predict the velocity noise - x0 at `timestep` (0 clean .. 1000 noise).

        `encoder_attention_mask` is True on real text tokens, at least one a row; padding does
        not change the result.
        """
        # inputs: one token per position, text, and what modulates the blocks
        f, h, w = hidden_states.shape[2:]
        text, mask = encoder_hidden_states.to(self.dtype), encoder_attention_mask
        if mask is None:
            mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        x = self.proj_in(rearrange(hidden_states, "b c f h w -> b (f h w) c").to(self.dtype))
        emb = self.time_embed(timestep_embedding(timestep, 256).to(self.dtype))
        emb = nn.functional.silu(emb + self.pool_embed(pooled(text, mask)))
        modulation = rearrange(self.modulation(emb), "b (n d) -> b n 1 d", n=6)
        # blocks, each along its axis
        grids = {"all": (f, h, w)}
        if self.config.attention == "factorised":
            grids = {"space": (1, h, w), "time": (f, 1, 1)}
        head_dim = self.config.width // self.config.num_heads
        axes = [(a, rotary_table(grid, head_dim, device=x.device)) for a, grid in grids.items()]
        for index, block in enumerate(self.transformer_blocks):
            axis, table = axes[index % len(axes)]
            x = block(x, text, mask, modulation, axis, f, table)
        # output
        shift, scale = rearrange(self.modulation_out(emb), "b (n d) -> n b 1 d", n=2)
        x = self.proj_out(self.norm_out(x) * (1 + scale) + shift)
        sample = rearrange(x, "b (f h w) c -> b c f h w", f=f, h=h, w=w)
        return Sample(sample) if return_dict else (sample,)


class _Block(nn.Module):
    def __init__(self, width, num_heads, mlp_ratio, text_width, backend):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.table = nn.Parameter(torch.randn(6, 1, width) / math.sqrt(width))
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn1 = Attention(width, num_heads, backend=backend)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn2 = Attention(width, num_heads, context_width=text_width, backend=backend)
        self.norm3 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU("tanh"), nn.Linear(hidden, width)
        )
        with torch.no_grad():
            self.table[2].zero_()
            self.table[5].zero_()
            nn.init.zeros_(self.attn2.to_out.weight)

    def forward(self, x, text, mask, modulation, axis, num_frames, rotary):
        shift1, scale1, gate1, shift3, scale3, gate3 = (modulation + self.table).unbind(1)
        y = self.norm1(x) * (1 + scale1) + shift1
        y = rearrange(y, f"b (f s) d -> {_ROWS[axis]}", f=num_frames)
        y = self.attn1(y, rotary=rotary)
        y = rearrange(y, f"{_ROWS[axis]} -> b (f s) d", b=len(x), f=num_frames)
        x = x + gate1 * y
        x = x + self.attn2(self.norm2(x), text, mask=mask)
        y = self.norm3(x) * (1 + scale3) + shift3
        return x + gate3 * self.mlp(y)


def timestep_embedding(timestep: Real[Tensor, " B"], size: int) -> Float[Tensor, "B size"]:
    """Cosines and sines of timestep / 1000 at frequencies from 1 to 1000 radians, geometric."""
    steps = torch.linspace(0, 1, size // 2, device=timestep.device)
    frequency = torch.exp(math.log(1000.0) * steps)
    angle = timestep.float()[:, None] / 1000 * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
