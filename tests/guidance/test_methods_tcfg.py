"""Tcfg guidance: the closed form against a singular value decomposition in float64."""

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, B, F, into, out_of, video
from rule_runs import assert_follows, one_step

from vidcfg.guidance.rules.tcfg import Tcfg


def spread_apart():
    return {"uncond": video(0), "cond": 1.5 * video(1) - 0.3 * video(0)}


def close_together():
    base = video(0)
    return {"uncond": base, "cond": base + 1e-2 * video(1)}


def tcfg(c, u, s, w):
    _, _, vectors = np.linalg.svd(np.stack([c.ravel(), u.ravel()]), full_matrices=False)
    kept = (u.ravel() @ vectors[0]) * vectors[0]
    kept = kept.reshape(u.shape)
    return kept + s * (c - kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("space", ["x0", "prediction"])
@pytest.mark.parametrize("make", [spread_apart, close_together])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_closed_form_is_the_decomposition(axes, make, space, clip, dtype):
    rule, kinds = Tcfg(space), {"axes": axes, "clip": clip, "dtype": dtype}
    assert_follows(rule, tcfg, make(), SURFACE_BF, **kinds, atol=2e-4)


def test_equals_the_function_of_diffusers_over_the_clip():
    from diffusers.guiders.tangential_classifier_free_guidance import normalized_guidance

    videos = spread_apart()
    ready = {n: into("BCFHW", v) for n, v in videos.items()}
    want = out_of("BCFHW", normalized_guidance(ready["cond"], ready["uncond"], 6.0))
    guided, _, _ = one_step(Tcfg(), videos, np.full((B, F), 6.0), statistics="clip")
    # a float32 decomposition there, values up to 60
    torch.testing.assert_close(guided, want, rtol=1e-4, atol=5e-4)


def test_uncond_at_a_right_angle_and_shorter_is_left_out():
    cond = torch.zeros_like(video(0))
    uncond = cond.clone()
    cond[..., 0], uncond[..., 1] = 2.0, 1.0
    guided, _, _ = one_step(Tcfg(), {"cond": cond, "uncond": uncond}, SURFACE_BF)
    strength = torch.from_numpy(SURFACE_BF).float()[:, :, None, None, None]
    assert torch.equal(guided, strength * cond)


def test_undefined_direction_keeps_uncond():
    cond = torch.zeros_like(video(0))
    uncond = cond.clone()
    cond[..., 0], uncond[..., 1] = 2.0, 2.0
    guided, _, _ = one_step(Tcfg(), {"cond": cond, "uncond": uncond}, SURFACE_BF)
    strength = torch.from_numpy(SURFACE_BF).float()[:, :, None, None, None]
    torch.testing.assert_close(guided, uncond + strength * (cond - uncond))
