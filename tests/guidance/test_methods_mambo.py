"""Magnitude-aware guidance against a float64 loop."""

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, bits, video
from rule_runs import assert_follows, one_step

from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.rules.mambo import Mambo


def pair():
    base = video(0)
    return {"uncond": base, "cond": base + 0.3 * video(1)}


def mambo(alpha):
    def formula(c, u, s, w):
        ratio = np.sqrt(((c - u) ** 2).sum() / (u**2).sum())
        return u + (1 + (s - 1) * np.exp(-alpha * ratio)) * (c - u)

    return formula


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("space", ["x0", "prediction"])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_formula_in_both_spaces(axes, space, clip, dtype):
    rule, kinds = Mambo(2.0, space), {"axes": axes, "clip": clip, "dtype": dtype}
    assert_follows(rule, mambo(2.0), pair(), SURFACE_BF, **kinds)


def test_alpha_zero_is_plain_guidance_to_the_bit():
    plain, _, _ = one_step(Cfg(), pair(), SURFACE_BF)
    off, _, _ = one_step(Mambo(0.0), pair(), SURFACE_BF)
    assert torch.equal(bits(off), bits(plain))


def test_far_predictions_are_guided_less():
    near, far = pair(), pair()
    far["cond"] = far["uncond"] + 10 * (far["cond"] - far["uncond"])
    found = []
    for videos in (near, far):
        guided, _, _ = one_step(Mambo(1.0), videos, 0 * SURFACE_BF + 5.0)
        moved = (guided - videos["cond"]).norm() / (videos["cond"] - videos["uncond"]).norm()
        found.append(float(moved))
    assert 4 * found[1] < found[0] < 4.0
