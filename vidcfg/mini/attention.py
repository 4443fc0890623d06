"""Multi-head attention of the mini model: QK RMS norm, rotary positions, a choice of backend."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

BACKENDS = ("sdpa", "math", "xformers")
"""`sdpa` is torch's fused attention, `math` plain matrix products (several times faster for
training in bf16 on CPUs), `xformers` its memory-efficient kernel on CUDA.
"""


def check_backend(backend: str, device: torch.device | None = None) -> None:
    """Raise ValueError for a backend that is unknown, or that cannot run on `device`."""
    if backend not in BACKENDS:
        raise ValueError(f"attention_backend is '{backend}'. Use one of: {', '.join(BACKENDS)}.")
    if backend != "xformers" or device is None:
        return
    if device.type != "cuda":
        raise ValueError(
            f"attention_backend is 'xformers', which needs a CUDA device, but the model is on "
            f"'{device}'. Use attention_backend: sdpa, or move the model to CUDA."
        )
    try:
        import xformers.ops  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "attention_backend is 'xformers', but xformers is not installed. "
            "Use attention_backend: sdpa, or type: pip install 'vidcfg[cuda]'"
        ) from error


def attend(
    q: Float[Tensor, "B H N D"],
    k: Float[Tensor, "B H M D"],
    v: Float[Tensor, "B H M D"],
    *,
    mask: Bool[Tensor, "B M"] | None = None,
    backend: str = "sdpa",
) -> Float[Tensor, "B H N D"]:
    """softmax(q k^T / sqrt(D)) v over the keys where `mask` is True, at least one a row."""
    if has_torch_function((q, k, v)):
        return handle_torch_function(attend, (q, k, v), q, k, v, mask=mask, backend=backend)
    if backend == "xformers":
        check_backend(backend, q.device)
        return _attend_xformers(q, k, v, mask)
    if backend == "sdpa":
        bias = None if mask is None else mask[:, None, None, :]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
    return scores.softmax(dim=-1).to(v.dtype) @ v


def _attend_xformers(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    import xformers.ops

    bias = None
    if mask is not None:
        # xformers wants rows of the bias aligned to 8 elements: allocate wider, then cut.
        keys, queries = k.shape[2], q.shape[2]
        wide = q.new_zeros(q.shape[0], q.shape[1], queries, -(-keys // 8) * 8)
        bias = wide[..., :keys].masked_fill_(~mask[:, None, None, :], float("-inf"))
    q, k, v = (rearrange(x, "b h n d -> b n h d").contiguous() for x in (q, k, v))
    out = xformers.ops.memory_efficient_attention(q, k, v, attn_bias=bias)
    return rearrange(out, "b n h d -> b h n d")


def rotary_axes(head_dim: int) -> tuple[int, int, int]:
    """How many channels of a head turn with t (about a quarter), h and w."""
    space = head_dim * 3 // 8 // 2 * 2
    return head_dim - 2 * space, space, space


def rotary_table(
    sizes: tuple[int, int, int], head_dim: int, *, device=None
) -> tuple[Float[Tensor, "N half"], Float[Tensor, "N half"]]:
    """Cosines and sines of the rotary angles of a grid of (t, h, w) positions, t slowest.

    Channel pair i of an axis with n channels turns by position * 100^(-2 i / n).
    """
    angles = []
    grid = torch.meshgrid(*(torch.arange(n, device=device) for n in sizes), indexing="ij")
    for positions, channels in zip(grid, rotary_axes(head_dim), strict=True):
        speed = 100.0 ** (-torch.arange(0, channels, 2, device=device).float() / channels)
        angles.append(positions.flatten().float()[:, None] * speed)
    angle = torch.cat(angles, dim=1)
    return angle.cos(), angle.sin()


def rotate(
    x: Float[Tensor, "*batch N D"], cos: Float[Tensor, "#N half"], sin: Float[Tensor, "#N half"]
) -> Float[Tensor, "*batch N D"]:
    """Turn the channel pairs (i, i + D / 2): lengths stay, q . k depends on differences only."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Attention(nn.Module):
    """Multi-head attention of `x` over `context` (itself without one)."""

    def __init__(
        self, width: int, num_heads: int, context_width: int | None = None, backend: str = "sdpa"
    ):
        super().__init__()
        if width % num_heads or (width // num_heads) % 2:
            raise ValueError(
                f"width {width} over {num_heads} heads does not give an even head size. "
                "Use a width that is a multiple of 2 * num_heads."
            )
        self.num_heads, self.backend = num_heads, backend
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width or width, width, bias=False)
        self.to_v = nn.Linear(context_width or width, width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.norm_q = nn.RMSNorm(width // num_heads, eps=1e-6)
        self.norm_k = nn.RMSNorm(width // num_heads, eps=1e-6)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        context: Float[Tensor, "B M E"] | None = None,
        *,
        mask: Bool[Tensor, "B M"] | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "B N D"]:
        context = x if context is None else context
        q, k, v = (
            rearrange(f(y), "b n (h d) -> b h n d", h=self.num_heads)
            for f, y in ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        )
        q, k = self.norm_q(q), self.norm_k(k)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        q, k = q.to(v.dtype), k.to(v.dtype)
        out = attend(q, k, v, mask=mask, backend=self.backend)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))
