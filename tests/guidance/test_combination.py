"""The weighted sum: coefficients, bits and frames that are off."""

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, WEIGHT_BF, B, F, bits, into, out_of, video

from vidcfg.guidance.apply import combine
from vidcfg.guidance.combination import Combination
from vidcfg.guidance.layout import FrameLayout

NONE_OFF = np.zeros((B, F), dtype=bool)


@pytest.mark.parametrize("axes", LAYOUTS)
def test_sum_equals_a_float64_loop_over_frames(axes):
    layout = FrameLayout(axes)
    videos = {"uncond": video(0), "cond": video(1), "negative": video(2)}
    frames = {n: layout.frames(into(axes, v), F) for n, v in videos.items()}
    gain, factor = 1 + WEIGHT_BF, 0.5 + WEIGHT_BF
    deltas = {"cond": SURFACE_BF, "negative": -WEIGHT_BF}
    combination = Combination("uncond", gain, deltas, NONE_OFF, factor)
    guided = out_of(axes, layout.restore(combine(frames, combination)))
    for b in range(B):
        for f in range(F):
            u, c, n = (videos[x][b, f].double() for x in ("uncond", "cond", "negative"))
            want = gain[b, f] * u + SURFACE_BF[b, f] * (c - u) - WEIGHT_BF[b, f] * (n - u)
            # at most five float32 roundings of terms up to 9 * 8
            torch.testing.assert_close(
                guided[b, f].double(), factor[b, f] * want, rtol=0, atol=2e-5
            )
    for name, v in videos.items():
        assert torch.equal(out_of(axes, layout.restore(frames[name])), v)


def test_coefficients_rebuild_the_guided_prediction():
    frames = {"uncond": video(0).double(), "cond": video(1).double()}
    weight, surface, off = map(torch.from_numpy, (WEIGHT_BF, SURFACE_BF, NONE_OFF))
    combination = Combination("uncond", 1 + weight, {"cond": surface}, off).scaled(0.5 + weight)
    x = combination.coefficients(("uncond", "cond"))[..., None, None, None]
    want = x[:, :, 0] * frames["uncond"] + x[:, :, 1] * (frames["cond"] - frames["uncond"])
    torch.testing.assert_close(combine(frames, combination), want, rtol=0, atol=1e-13)


def test_scaling_twice_multiplies():
    plain = Combination("uncond", None, {"cond": SURFACE_BF}, NONE_OFF)
    twice = plain.scaled(1 + WEIGHT_BF).scaled(2 + WEIGHT_BF)
    np.testing.assert_array_equal(twice.factor_BF, (1 + WEIGHT_BF) * (2 + WEIGHT_BF))
    assert plain.factor_BF is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frames_that_are_off_are_cond_to_the_bit_and_others_are_not(dtype):
    cond = video(1).to(dtype)
    cond[:, :, 0, 0, :2] = -0.0
    off = SURFACE_BF == 1
    combination = Combination("uncond", None, {"cond": SURFACE_BF}, off, 1 + WEIGHT_BF)
    guided = combine({"uncond": video(0).to(dtype), "cond": cond}, combination)
    for b in range(B):
        for f in range(F):
            assert torch.equal(bits(guided[b, f]), bits(cond[b, f])) == off[b, f]
