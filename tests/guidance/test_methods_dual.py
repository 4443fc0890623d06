"""Two-sided guidance against its formula; what it needs and where it is off."""

import numpy as np
import torch
from guidance_cases import SURFACE_BF, WEIGHT_BF, B, F, bits, video
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcfg.guidance.apply import combine
from vidcfg.guidance.frame_map import OneToOneMap
from vidcfg.guidance.frames import Uniform
from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.rules.dual import Dual
from vidcfg.guidance.schedule import Constant, IntervalSchedule
from vidcfg.guidance.setting import Guidance

NUMBERS = st.one_of(st.sampled_from([0.0, 1.0]), st.integers(-12, 24).map(lambda i: i / 4))


def guided_by(method, frames, strength_BF=SURFACE_BF, weight_BF=WEIGHT_BF):
    combination = method.combination(None, strength=strength_BF, weight=weight_BF)
    return combine(frames, combination)


def predictions():
    return {"cond": video(1), "uncond": video(0), "negative": video(2)}


def test_formula_frame_by_frame():
    frames = predictions()
    guided = guided_by(Dual(2.5), frames)
    for b in range(B):
        for f in range(F):
            c, u, n = (frames[x][b, f].double() for x in ("cond", "uncond", "negative"))
            want = u + SURFACE_BF[b, f] * (c - u) - 2.5 * WEIGHT_BF[b, f] * (n - u)
            torch.testing.assert_close(guided[b, f].double(), want, rtol=0, atol=2e-5)


def test_frame_of_weight_zero_is_cond_to_the_bit():
    frames = predictions()
    guided = guided_by(Dual(2.5), frames)
    assert torch.equal(bits(guided[0, 1]), bits(frames["cond"][0, 1]))
    assert torch.equal(bits(guided[1, 0]), bits(frames["cond"][1, 0]))


def test_negative_scale_zero_is_plain_guidance_without_a_third_pass():
    frames = predictions()
    plain = guided_by(Cfg(), {n: frames[n] for n in ("cond", "uncond")})
    assert torch.equal(guided_by(Dual(0.0), frames), plain)
    assert Dual(0.0).required(SURFACE_BF[0], WEIGHT_BF[0]) == {"cond", "uncond"}


@settings(deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4), NUMBERS)
def test_a_branch_is_required_exactly_where_it_changes_the_result(rows, scale):
    strength, weight = (np.array(column)[None] for column in zip(*rows))
    needed = Dual(scale).required(strength[0], weight[0])
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(rows), 7)
    frames = {
        n: torch.randn(shape, generator=generator, dtype=torch.float64) for n in Dual.branches
    }
    whole = guided_by(Dual(scale), frames, strength, weight)
    for branch in Dual.branches:
        other = frames | {branch: torch.randn(shape, generator=generator, dtype=torch.float64)}
        changed = guided_by(Dual(scale), other, strength, weight)
        # quarters are exact; 1e-9 is far above float64 rounding and below any true effect
        assert (float((changed - whole).abs().max()) > 1e-9) == (branch in needed)


def surface_of(schedule):
    rule = Guidance(scale=schedule, method=Dual(2.0), frames=Uniform())
    return rule.surface(num_steps=11, num_frames=3, frame_map=OneToOneMap())


def test_outside_an_interval_the_negative_side_is_off_too():
    surface = surface_of(IntervalSchedule(5.0, 0.3, 0.6))
    for k, (strength, weight) in enumerate(zip(surface.strength_KF, surface.weights_KF)):
        needed = Dual(2.0).required(strength, weight)
        assert needed == (set(Dual.branches) if 3 <= k <= 6 else {"cond"})


def test_a_constant_scale_of_one_keeps_the_negative_side_on():
    surface = surface_of(Constant(1.0))
    needed = Dual(2.0).required(surface.strength_KF[4], surface.weights_KF[4])
    assert needed == set(Dual.branches)
