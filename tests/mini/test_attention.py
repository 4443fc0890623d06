import math
import sys
import types

import pytest
import torch

from vidcfg.mini import attention
from vidcfg.mini.attention import (
    Attention,
    attend,
    check_backend,
    rotary_axes,
    rotary_table,
    rotate,
)


def inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=generator, dtype=dtype) for n in (5, 7, 7))
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    return q, k, v, mask


def reference(q, k, v, mask):
    """Softmax attention in float64, one row at a time."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    for b in range(q.shape[0]):
        keep = mask[b]
        for h in range(q.shape[1]):
            scores = q[b, h].double() @ k[b, h, keep].double().T / math.sqrt(q.shape[-1])
            weights = (scores - scores.max(1, keepdim=True).values).exp()
            out[b, h] = (weights / weights.sum(1, keepdim=True)) @ v[b, h, keep].double()
    return out


@pytest.mark.parametrize("backend", ["sdpa", "math"])
def test_attention_equals_a_float64_softmax_over_the_kept_keys(backend):
    q, k, v, mask = inputs()
    out = attend(q, k, v, mask=mask, backend=backend)
    # float32 sums of 7 terms of order 1.
    torch.testing.assert_close(out.double(), reference(q, k, v, mask), atol=2e-6, rtol=1e-5)


def test_masked_keys_do_not_change_a_single_bit_of_the_result():
    q, k, v, mask = inputs()
    changed_k, changed_v = k.clone(), v.clone()
    changed_k[1, :, 4:], changed_v[1, :, 4:] = 9.0, -9.0
    for backend in ("sdpa", "math"):
        a = attend(q, k, v, mask=mask, backend=backend)
        b = attend(q, changed_k, changed_v, mask=mask, backend=backend)
        assert torch.equal(a, b)


def test_xformers_on_cpu_is_refused_with_what_to_do():
    q, k, v, _ = inputs()
    with pytest.raises(ValueError, match="needs a CUDA device.*Use attention_backend: sdpa"):
        attend(q, k, v, backend="xformers")


def test_unknown_backend_lists_the_known_ones():
    with pytest.raises(ValueError, match="'flash'. Use one of: sdpa, math, xformers"):
        check_backend("flash", torch.device("cpu"))


def test_rotation_keeps_lengths():
    x = torch.randn(2, 3, 4 * 5 * 6, 16, generator=torch.Generator().manual_seed(0))
    y = rotate(x, *rotary_table((4, 5, 6), 16))
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))


def test_rotated_products_depend_on_the_offset_in_t_h_w_alone():
    q, k = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).double()
    cos, sin = (x.double() for x in rotary_table((4, 5, 6), 16))
    grid = [(t, h, w) for t in range(4) for h in range(5) for w in range(6)]
    place = {p: i for i, p in enumerate(grid)}

    def product(a, b):
        i, j = place[a], place[b]
        return (
            rotate(q[None], cos[i : i + 1], sin[i : i + 1])
            @ rotate(k[None], cos[j : j + 1], sin[j : j + 1]).T
        )

    # Tables are float32, so angles carry 1e-7 relative error.
    torch.testing.assert_close(
        product((0, 1, 2), (2, 0, 3)), product((1, 4, 4), (3, 3, 5)), atol=1e-5, rtol=0
    )
    assert (product((0, 1, 2), (2, 0, 3)) - product((0, 1, 2), (2, 0, 4))).abs() > 1e-3


def test_every_axis_turns_an_even_share_of_the_head():
    for head_dim in (12, 16, 32, 64, 80):
        axes = rotary_axes(head_dim)
        assert sum(axes) == head_dim
        assert all(n > 0 and n % 2 == 0 for n in axes)


def test_head_size_that_is_odd_is_refused():
    with pytest.raises(ValueError, match="width 30 over 2 heads"):
        Attention(30, 2)


def test_xformers_adapter_passes_its_layout_and_an_aligned_bias(monkeypatch):
    """With a stand-in for the kernel that follows xformers' documented contract: [B, N, H, D],
    additive bias.
    """

    def kernel(q, k, v, attn_bias=None):
        assert attn_bias.stride(-2) % 8 == 0
        scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / math.sqrt(q.shape[-1]) + attn_bias
        return torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v)

    package, ops = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    package.ops, ops.memory_efficient_attention = ops, kernel
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    monkeypatch.setattr(attention, "check_backend", lambda backend, device: None)
    q, k, v, mask = inputs()
    out = attend(q, k, v, mask=mask, backend="xformers")
    torch.testing.assert_close(out, attend(q, k, v, mask=mask), atol=2e-6, rtol=1e-5)
