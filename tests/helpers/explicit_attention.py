"""Attention written out as a matrix of weights, for the tiny transformers of every family.

Installed as a processor (or in the place of the mini model's attention), it shares nothing with
the hooks under test: the map is an explicit [B, heads, queries, keys] tensor whose video rows are
edited by hand.
"""

import math

import torch
from torch import Tensor


class Explicit:
    """A processor that computes softmax(q k^T) v as written, after `edit` has had its way.

    `edit` is None, "identity" (video rows of the map are those of a unit matrix), "blur" (video
    queries are blurred by hand over `grid`), or "drop" (video rows of the result are zero).
    """

    def __init__(self, edit=None, *, grid=None, sigma=None):
        self.edit, self.grid, self.sigma = edit, grid, sigma
        self.calls, self.video = 0, None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, video: slice, mask=None) -> Tensor:
        self.calls += 1
        if self.edit == "blur":
            q = q.clone()
            q[..., video, :] = blurred_by_hand(q[..., video, :], self.grid, self.sigma)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=-1)
        if self.edit == "identity":
            weights[..., video, :] = 0
            for i in range(video.start, video.stop):
                weights[..., i, i] = 1
        return (weights @ v).transpose(1, 2).flatten(2)

    def out(self, video: Tensor) -> Tensor:
        return torch.zeros_like(video) if self.edit == "drop" else video


def blurred_by_hand(q: Tensor, grid, sigma: float) -> Tensor:
    """A Gaussian over (F, H, W) by plain loops; weights inside the grid sum to 1 per axis."""
    volume = q.unflatten(-2, grid)
    for axis, size in enumerate(grid):
        places = volume.unbind(axis + 2)
        mixed = []
        for i in range(size):
            w = [
                1.0 if math.isinf(sigma) else math.exp(-((i - j) ** 2) / (2 * sigma**2))
                for j in range(size)
            ]
            mixed.append(sum(x * y for x, y in zip(w, places)) / sum(w))
        volume = torch.stack(mixed, dim=axis + 2)
    return volume.flatten(2, 4)


def heads(x: Tensor, attn) -> Tensor:
    return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Neighbouring channels as complex numbers, turned."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.complex(cos.to(x.dtype), sin.to(x.dtype))).flatten(-2)


class WanExplicit(Explicit):
    def __call__(self, attn, x, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        q, k = heads(attn.norm_q(attn.to_q(x)), attn), heads(attn.norm_k(attn.to_k(x)), attn)
        cos, sin = (r.transpose(1, 2)[..., ::2] for r in rotary_emb)
        q, k = turn(q, cos, sin), turn(k, cos, sin)
        out = self.attend(q, k, heads(attn.to_v(x), attn), slice(0, x.shape[1]))
        return self.out(attn.to_out[0](out))


class LTXExplicit(Explicit):
    def __call__(
        self, attn, x, encoder_hidden_states=None, attention_mask=None, image_rotary_emb=None
    ):
        cos, sin = (r[..., ::2] for r in image_rotary_emb)
        q = heads(turn(attn.norm_q(attn.to_q(x)), cos, sin), attn)
        k = heads(turn(attn.norm_k(attn.to_k(x)), cos, sin), attn)
        out = self.attend(q, k, heads(attn.to_v(x), attn), slice(0, x.shape[1]))
        return self.out(attn.to_out[0](out))


class CogVideoXExplicit(Explicit):
    def __call__(self, attn, x, encoder_hidden_states, attention_mask=None, image_rotary_emb=None):
        text = encoder_hidden_states.shape[1]
        both = torch.cat([encoder_hidden_states, x], dim=1)
        q, k, v = (heads(f(both), attn) for f in (attn.to_q, attn.to_k, attn.to_v))
        out = self.attend(attn.norm_q(q), attn.norm_k(k), v, slice(text, both.shape[1]))
        out = attn.to_out[0](out)
        return self.out(out[:, text:]), out[:, :text]


class HunyuanExplicit(Explicit):
    """Both kinds of block: text with projections of its own, or with those of the video."""

    def __call__(self, attn, x, encoder_hidden_states, attention_mask=None, image_rotary_emb=None):
        video = x.shape[1]
        own = getattr(attn, "add_q_proj", None) is not None
        projections = (attn.to_q, attn.to_k, attn.to_v)
        of_text = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj) if own else projections
        q, k, v = (heads(f(x), attn) for f in projections)
        tq, tk, tv = (heads(f(encoder_hidden_states), attn) for f in of_text)
        cos, sin = (r[:, ::2] for r in image_rotary_emb)
        q, k = turn(attn.norm_q(q), cos, sin), turn(attn.norm_k(k), cos, sin)
        tq = (attn.norm_added_q if own else attn.norm_q)(tq)
        tk = (attn.norm_added_k if own else attn.norm_k)(tk)
        q, k, v = torch.cat([q, tq], 2), torch.cat([k, tk], 2), torch.cat([v, tv], 2)
        out = self.attend(q, k, v, slice(0, video), attention_mask)
        pixels, words = out[:, :video], out[:, video:]
        if own:
            pixels, words = attn.to_out[0](pixels), attn.to_add_out(words)
        return self.out(pixels), words


class MochiExplicit(Explicit):
    """Text tokens that are padding take no part at all, sample by sample."""

    def __call__(self, attn, x, encoder_hidden_states, attention_mask=None, image_rotary_emb=None):
        video, words = x.shape[1], encoder_hidden_states.shape[1]
        q, k, v = (heads(f(x), attn) for f in (attn.to_q, attn.to_k, attn.to_v))
        cos, sin = (r.transpose(0, 1) for r in image_rotary_emb)
        q, k = turn(attn.norm_q(q), cos, sin), turn(attn.norm_k(k), cos, sin)
        tq, tk, tv = (
            heads(f(encoder_hidden_states), attn)
            for f in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        )
        tq, tk = attn.norm_added_q(tq), attn.norm_added_k(tk)
        rows = []
        for b in range(len(x)):
            kept = attention_mask[b].bool().flatten()
            parts = [
                torch.cat([y[b : b + 1], t[b : b + 1, :, kept]], dim=2)
                for y, t in ((q, tq), (k, tk), (v, tv))
            ]
            out = self.attend(*parts, slice(0, video))
            padding = out.new_zeros(1, video + words - out.shape[1], out.shape[2])
            rows.append(torch.cat([out, padding], dim=1))
        out = torch.cat(rows)
        pixels, text = attn.to_out[0](out[:, :video]), out[:, video:]
        return self.out(pixels), attn.to_add_out(text) if hasattr(attn, "to_add_out") else text


class MiniExplicit(torch.nn.Module, Explicit):
    """In the place of the mini model's attention, whose weights it borrows."""

    def __init__(self, attention, edit=None, *, grid=None, sigma=None):
        torch.nn.Module.__init__(self)
        Explicit.__init__(self, edit, grid=grid, sigma=sigma)
        self.attention = attention

    def forward(self, x, context=None, *, mask=None, rotary=None):
        a = self.attention
        q, k, v = (
            f(x).unflatten(2, (a.num_heads, -1)).transpose(1, 2) for f in (a.to_q, a.to_k, a.to_v)
        )
        q, k = self._turned(a.norm_q(q), *rotary), self._turned(a.norm_k(k), *rotary)
        return self.out(a.to_out(self.attend(q, k, v, slice(0, x.shape[1]))))

    def _turned(self, x, cos, sin):
        half = x.shape[-1] // 2
        pairs = torch.stack([x[..., :half], x[..., half:]], dim=-1).flatten(-2)
        turned = turn(pairs, cos, sin).unflatten(-1, (-1, 2))
        return torch.cat([turned[..., 0], turned[..., 1]], dim=-1)


EXPLICIT = {
    "wan": WanExplicit,
    "ltx": LTXExplicit,
    "cogvideox": CogVideoXExplicit,
    "hunyuan_video": HunyuanExplicit,
    "mochi": MochiExplicit,
}


class Skipped(torch.nn.Module):
    """A block that hands on what it gets, in the order in which its family returns it."""

    def __init__(self, joint: bool):
        super().__init__()
        self.joint = joint

    def forward(self, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        return (hidden_states, encoder_hidden_states) if self.joint else hidden_states
