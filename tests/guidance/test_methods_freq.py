"""Frequency-decoupled guidance against scipy's cosine transform in float64."""

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, B, F, bits, video
from rule_runs import one_step
from scipy.fft import dct, idct

from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.rules.freq import Freq, low_pass_matrix


def pair():
    return {"uncond": video(0), "cond": video(1)}


def low(values, axis, cutoff):
    size = values.shape[axis]
    share = 0.5 ** (np.arange(size) / (cutoff * size)) ** 2
    shape = [size if a == axis else 1 for a in range(values.ndim)]
    modes = dct(values, axis=axis, norm="ortho") * share.reshape(shape)
    return idct(modes, axis=axis, norm="ortho")


def reference(method, videos, strength):
    c, u = (videos[n].double().numpy() for n in ("cond", "uncond"))
    d = c - u  # B F C H W
    coarse = low(low(d, 3, method.space_cutoff), 4, method.space_cutoff)
    d = method.space_low * coarse + method.space_high * (d - coarse)
    coarse = low(d, 1, method.time_cutoff)
    d = method.time_low * coarse + method.time_high * (d - coarse)
    return c + (strength - 1)[:, :, None, None, None] * d


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("axes", LAYOUTS)
@pytest.mark.parametrize(
    "gains",
    [
        {"space_low": 0.4, "space_high": 1.6},
        {"time_low": 0.0, "time_high": 2.0, "time_cutoff": 0.4},
        {"space_high": 1.5, "time_low": 1.2, "time_high": 0.1, "space_cutoff": 0.7},
    ],
)
def test_bands_are_those_of_the_cosine_transform(axes, dtype, gains):
    videos = {n: v.to(dtype).float() for n, v in pair().items()}
    method = Freq(**gains)
    for statistics in ("frame", "clip"):
        guided, _, _ = one_step(
            method, videos, SURFACE_BF, axes=axes, dtype=dtype, statistics=statistics
        )
        want = reference(method, videos, SURFACE_BF)
        # float32 roundings of terms up to 60; bfloat16 keeps 8 bits of the result
        rtol, atol = (1e-5, 1e-4) if dtype == torch.float32 else (2**-8, 1e-3)
        np.testing.assert_allclose(guided.double().numpy(), want, rtol=rtol, atol=atol)


def test_gains_of_one_are_plain_guidance_to_the_bit():
    plain, _, plain_calls = one_step(Cfg(), pair(), SURFACE_BF)
    off, _, calls = one_step(Freq(), pair(), SURFACE_BF)
    assert torch.equal(bits(off), bits(plain))
    assert calls == plain_calls
    zero = np.zeros(F)
    assert Freq().required(zero, zero + 1) == {"uncond"}
    assert Freq(time_low=0.0).required(zero, zero + 1) == {"cond", "uncond"}


def test_low_pass_keeps_a_constant_and_halves_the_mode_at_the_cutoff():
    for size in (1, 2, 8):
        matrix = low_pass_matrix(size, 0.25)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-15)
        np.testing.assert_allclose(matrix @ np.ones(size), np.ones(size), atol=1e-14)
    mode = np.cos(np.pi * 2 * (2 * np.arange(8) + 1) / 16)
    np.testing.assert_allclose(low_pass_matrix(8, 0.25) @ mode, 0.5 * mode, atol=1e-14)


def test_first_and_last_frame_are_no_neighbours():
    frames = np.zeros(F)
    frames[0] = 1.0
    spread = low_pass_matrix(F, 0.4) @ frames
    assert spread[1] > 3 * abs(spread[-1])


def test_change_that_is_the_same_in_all_frames_has_no_fast_part():
    videos = pair()
    videos["cond"] = videos["uncond"] + (videos["cond"] - videos["uncond"])[:, :1]
    plain, _, _ = one_step(Cfg(), videos, SURFACE_BF)
    other, _, _ = one_step(Freq(time_high=0.0), videos, SURFACE_BF)
    # float32 roundings of values up to 60
    torch.testing.assert_close(other, plain, rtol=1e-5, atol=1e-4)


def test_bits_do_not_change_under_autocast():
    method = Freq(space_high=0.2, time_high=0.3)
    plain, _, _ = one_step(method, pair(), SURFACE_BF)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other, _, _ = one_step(method, pair(), SURFACE_BF)
    assert torch.equal(bits(other), bits(plain))


def test_tokens_of_unknown_height_are_refused_over_space_alone():
    from vidcfg.guidance.rule import Vectors

    tokens = torch.randn(B, F, 24, 3)
    vectors = Vectors({"cond": tokens, "uncond": tokens}, {}, grid=None)
    with pytest.raises(ValueError, match=r"24 tokens per frame.*time_low and time_high"):
        Freq(space_low=0.5).extra(vectors)
    assert Freq(time_low=0.5).extra(vectors)["bands"].shape == tokens.shape
