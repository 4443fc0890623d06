"""CFG++ as a prediction for Euler and DDIM steps, against the two-part step written out."""

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, B, F, bits, video
from rule_runs import one_step

from vidcfg.guidance.prediction import convert
from vidcfg.guidance.rules.cfg_pp import CfgPp, Renoised, step_ratio

LEVELS = {
    "flow": ((0.3, 0.7), (0.45, 0.55)),
    "epsilon": ((0.6, 0.8), (0.8, 0.6)),
    "v_prediction": ((0.6, 0.8), (0.8, 0.6)),
}


def pair():
    return {"uncond": video(0), "cond": video(1)}


def two_part_step(videos, noisy, lam, weight, kind, before, after):
    """alpha' x0(guided) + sigma' eps, with eps of uncond where the weight is 1, in float64."""
    level = {"alpha": before[0], "sigma": before[1]}
    c, u, x = (v.double() for v in (videos["cond"], videos["uncond"], noisy))
    lam, weight = (torch.from_numpy(v)[:, :, None, None, None] for v in (lam, weight))
    guided = u + lam * (c - u)
    x0 = convert(guided, x, kind, "sample", **level)
    noise = weight * convert(u, x, kind, "epsilon", **level)
    noise = noise + (1 - weight) * convert(guided, x, kind, "epsilon", **level)
    return after[0] * x0 + after[1] * noise


@pytest.mark.parametrize("axes", LAYOUTS)
@pytest.mark.parametrize("kind", sorted(LEVELS))
def test_solver_step_of_the_prediction_is_the_two_part_step(kind, axes):
    before, after = LEVELS[kind]
    noisy, videos = video(99), pair()
    weight = np.where(SURFACE_BF == 1, 0.0, 0.4 + 0.1 * np.arange(F)) * np.ones((B, 1))
    weight[0, 0] = 1.0
    method = Renoised(CfgPp(), step_ratio(before, after))
    guided, _, _ = one_step(
        method, videos, SURFACE_BF, weight, axes=axes, noisy=noisy, prediction=kind
    )
    level = {"alpha": before[0], "sigma": before[1]}
    parts = [
        convert(guided.double(), noisy.double(), kind, to, **level) for to in ("sample", "epsilon")
    ]
    stepped = after[0] * parts[0] + after[1] * parts[1]
    want = two_part_step(videos, noisy, SURFACE_BF, weight, kind, before, after)
    # float32 roundings of terms up to 100
    torch.testing.assert_close(stepped, want, rtol=1e-5, atol=2e-4)


def test_pure_noise_and_the_last_step_need_no_correction():
    assert step_ratio((0.0, 1.0), (0.3, 0.7)) == 1
    assert step_ratio((0.6, 0.8), (1.0, 0.0)) == 1


def test_frame_of_weight_zero_is_cond_to_the_bit():
    weight = np.where(SURFACE_BF == 1, 0.0, 1.0)
    guided, _, _ = one_step(Renoised(CfgPp(), 3.7), pair(), SURFACE_BF, weight)
    for b, f in zip(*np.nonzero(SURFACE_BF == 1)):
        assert torch.equal(bits(guided[b, f]), bits(pair()["cond"][b, f]))


def test_lambda_one_still_takes_the_noise_of_uncond():
    ones = np.ones(F)
    assert CfgPp().required(ones, ones) == {"cond", "uncond"}
    assert CfgPp().required(ones, 0 * ones) == {"cond"}
    assert CfgPp().required(0 * ones, ones) == {"uncond"}
    guided, _, _ = one_step(Renoised(CfgPp(), 1.8), pair(), np.ones((B, F)))
    u, c = pair()["uncond"], pair()["cond"]
    torch.testing.assert_close(guided, u + 1.8 * (c - u))


def test_steps_take_their_ratio_from_the_levels():
    levels = (((0.0, 1.0), (0.4, 0.6)), ((0.4, 0.6), (1.0, 0.0)))
    rows = np.full((2, F), 0.6)
    methods = CfgPp().steps(rows, rows, levels=levels)
    assert [m.ratio for m in methods] == [1.0, 1.0]
    assert CfgPp().steps(rows, rows) == (CfgPp(), CfgPp())
