"""CFG-Zero* against a float64 loop and diffusers; steps on which nothing moves."""

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, B, F, bits, into, out_of, video
from rule_runs import assert_follows, one_step, plan_of, rule_of

from vidcfg.guidance.composite import Composite
from vidcfg.guidance.frame_map import OneToOneMap
from vidcfg.guidance.limits import Rescale, Threshold
from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.rules.zero_star import ZeroStar
from vidcfg.guidance.setting import Guidance


def pair():
    base = video(0)
    return {"uncond": base, "cond": base + 0.7 * video(1)}


def zero_star(c, u, s, w):
    fit = (c * u).sum() / (u * u).sum()
    return fit * u + s * (c - fit * u)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("space", ["x0", "prediction"])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_formula_in_both_spaces(axes, space, clip, dtype):
    rule, kinds = ZeroStar(0, space), {"axes": axes, "clip": clip, "dtype": dtype}
    assert_follows(rule, zero_star, pair(), SURFACE_BF, **kinds)


def test_equals_diffusers_over_the_clip():
    from diffusers import ClassifierFreeZeroStarGuidance

    peer = ClassifierFreeZeroStarGuidance(7.5, zero_init_steps=1)
    videos, steps = pair(), 3
    for k in range(2):
        peer.set_state(k, steps, torch.tensor(k))
        ready = {n: into("BCFHW", v) for n, v in videos.items()}
        want = out_of("BCFHW", peer.forward(ready["cond"], ready["uncond"]).pred)
        guided, _, _ = one_step(
            ZeroStar(), videos, np.full((B, F), 7.5), steps=steps, step=k, statistics="clip"
        )
        # float32 on both sides, values up to 40
        torch.testing.assert_close(guided, want, rtol=1e-5, atol=2e-5)
        assert k > 0 or not guided.any()


def test_predictions_of_equal_direction_and_length_are_plain_guidance():
    videos = pair()
    videos["cond"] = videos["uncond"].clone()
    guided, _, _ = one_step(ZeroStar(0), videos, SURFACE_BF)
    # fit = 1 up to float32 sums
    torch.testing.assert_close(guided, videos["uncond"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axes", LAYOUTS)
def test_zeroed_step_runs_nothing_and_gives_zeros(axes):
    for dtype in (torch.float32, torch.bfloat16):
        guided, trace, calls = one_step(
            ZeroStar(1), pair(), np.full((B, F), 3.0), axes=axes, dtype=dtype, steps=4
        )
        assert calls == []
        assert trace.evaluations == {}
        assert trace.calls == 0
        assert guided.dtype == dtype
        assert guided.shape == video(0).shape
        assert not guided.any()
        assert not trace.std_guided_BF.any()


def test_frame_that_is_off_follows_cond_on_a_zeroed_step():
    videos = pair()
    guided, trace, calls = one_step(ZeroStar(1), videos, SURFACE_BF, steps=4)
    assert calls == [("cond",) * B]
    off = SURFACE_BF == 1
    for b in range(B):
        for f in range(F):
            if off[b, f]:
                assert torch.equal(bits(guided[b, f]), bits(videos["cond"][b, f]))
            else:
                assert not guided[b, f].any()


@pytest.mark.parametrize(
    "limits",
    [{"rescale": Rescale(1.0)}, {"threshold": Threshold(50.5, 0.1)}, {"clamp": 0.5}],
)
def test_limits_leave_a_zeroed_step_at_zero(limits):
    for strength in (np.full((B, F), 3.0), SURFACE_BF):
        guided, _, _ = one_step(ZeroStar(1), pair(), strength, steps=4, **limits)
        assert torch.isfinite(guided).all()
        assert not guided[torch.from_numpy(strength != 1)].any()


def test_zeroed_step_takes_over_from_all_terms():
    method = Composite((ZeroStar(1), Cfg()))
    strength = np.stack([SURFACE_BF, np.where(np.arange(F) < 2, 1.0, 2.0) * np.ones((B, 1))], 1)
    guided, trace, _ = one_step(method, pair(), strength, steps=4)
    off = (strength == 1).all(axis=1)
    assert not guided[torch.from_numpy(~off)].any()
    assert torch.equal(guided[torch.from_numpy(off)], pair()["cond"][torch.from_numpy(off)])
    assert trace.evaluations == {"cond": 2}


def test_zeroed_steps_are_planned_as_free():
    plan = plan_of(ZeroStar(2), np.full((1, 5, F), 3.0))
    assert plan.per_step == ({}, {}, *[{"cond": 1, "uncond": 1}] * 3)
    assert rule_of(ZeroStar(2)).order() == ("method:zero_star",)


@pytest.mark.parametrize(("count", "steps", "fix"), [(1, 1, "Write 0."), (4, 4, "at most 3")])
def test_zeroing_every_step_is_refused(count, steps, fix):
    guidance = Guidance(scale=3.0, method=ZeroStar(count))
    with pytest.raises(ValueError, match=f"zero_init_steps is {count}.*{fix}"):
        guidance.surface(num_steps=steps, num_frames=F, frame_map=OneToOneMap())


def test_zero_is_no_velocity_for_other_predictions_than_a_flow():
    with pytest.raises(ValueError, match=r"predicts epsilon and not a flow.*zero_init_steps: 0"):
        one_step(ZeroStar(1), pair(), SURFACE_BF, steps=4, prediction="epsilon")
    one_step(ZeroStar(0), pair(), SURFACE_BF, steps=4, prediction="epsilon")
