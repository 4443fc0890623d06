"""Guidance with a cap on its norm, against a float64 loop."""

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, bits, video
from rule_runs import assert_follows, one_step

from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.rules.renorm import Renorm


def pair():
    base = video(0)
    return {"uncond": base, "cond": base + 0.4 * video(1)}


def renorm(cap):
    def formula(c, u, s, w):
        g = u + s * (c - u)
        return g * min(1.0, cap * np.sqrt((c**2).sum() / (g**2).sum()))

    return formula


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("space", ["x0", "prediction"])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_formula_in_both_spaces(axes, space, clip, dtype):
    rule, kinds = Renorm(1.1, space), {"axes": axes, "clip": clip, "dtype": dtype}
    assert_follows(rule, renorm(1.1), pair(), SURFACE_BF, **kinds)


def test_cap_that_is_not_reached_is_plain_guidance_to_the_bit():
    plain, _, _ = one_step(Cfg(), pair(), SURFACE_BF)
    off, _, _ = one_step(Renorm(100.0), pair(), SURFACE_BF)
    assert torch.equal(bits(off), bits(plain))


def test_no_frame_is_longer_than_its_cap():
    videos = pair()
    guided, _, _ = one_step(Renorm(1.0), videos, 0 * SURFACE_BF + 9.0)
    sizes = guided.flatten(2).norm(dim=2) / videos["cond"].flatten(2).norm(dim=2)
    torch.testing.assert_close(sizes, torch.ones_like(sizes), rtol=1e-6, atol=0)


def test_rescale_of_a_clip_measures_frames_that_are_off_as_they_are():
    """They are `cond`, which the cap of the clip does not make smaller."""
    videos, scales = pair(), np.where(SURFACE_BF == 1, 1.0, 9.0)
    options = {"statistics": "clip", "rescale": {"amount": 1.0, "space": "prediction"}}
    guided, _, _ = one_step(Renorm(0.5), videos, scales, **options)
    c, u = (videos[name].double().numpy() for name in ("cond", "uncond"))
    off = (scales == 1)[..., None, None, None]
    for b in range(len(c)):
        g = renorm(0.5)(c[b], u[b], scales[b][:, None, None, None], None)
        g = np.where(off[b], c[b], g)
        want = np.where(off[b], c[b], g * c[b].std() / g.std())
        np.testing.assert_allclose(guided[b].double().numpy(), want, rtol=1e-5, atol=1e-5)
