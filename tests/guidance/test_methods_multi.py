"""Several conditions against the formula; what each needs."""

import numpy as np
import pytest
import torch
from guidance_cases import SURFACE_BF, WEIGHT_BF, B, F, bits, video
from rule_runs import multi

from vidcfg.guidance.apply import combine
from vidcfg.guidance.frame_map import OneToOneMap
from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.schedule import IntervalSchedule
from vidcfg.guidance.setting import Guidance

SCALES = (("style", 3.0), ("place", -0.75))


def predictions():
    names = ("uncond", "cond", "condition:style", "condition:place")
    return {name: video(i) for i, name in enumerate(names)}


def guided_by(method, frames):
    combination = method.combination(None, strength=SURFACE_BF, weight=WEIGHT_BF)
    return combine(frames, combination)


def test_formula_frame_by_frame():
    frames = predictions()
    guided = guided_by(multi(*SCALES), frames)
    for b in range(B):
        for f in range(F):
            u, c, s, p = (frames[n][b, f].double() for n in frames)
            want = u + SURFACE_BF[b, f] * (c - u)
            want = want + WEIGHT_BF[b, f] * (3.0 * (s - u) - 0.75 * (p - u))
            torch.testing.assert_close(guided[b, f].double(), want, rtol=0, atol=2e-5)
    assert torch.equal(bits(guided[0, 1]), bits(frames["cond"][0, 1]))


def test_scales_of_zero_are_plain_guidance():
    frames = predictions()
    off = multi(("style", 0.0), ("place", 0.0))
    plain = guided_by(Cfg(), {n: frames[n] for n in ("cond", "uncond")})
    assert torch.equal(guided_by(off, frames), plain)
    assert off.required(SURFACE_BF[0], WEIGHT_BF[0]) == {"cond", "uncond"}


def test_each_condition_is_its_own_branch_and_text():
    method = multi(*SCALES)
    assert method.branches == ("cond", "uncond", "condition:style", "condition:place")
    assert method.sources()["condition:place"] == "condition:place"
    assert method.sources()["uncond"] == "negative"


def test_condition_without_weight_or_scale_is_left_out():
    ones, zeros = np.ones(F), np.zeros(F)
    assert multi(*SCALES).required(ones, zeros) == {"cond"}
    assert multi(*SCALES).required(zeros, zeros) == {"uncond"}
    half = multi(("style", 3.0), ("place", 0.0))
    assert half.required(ones, ones) == {"cond", "uncond", "condition:style"}


def test_uncond_is_left_out_where_the_conditions_use_up_its_coefficient():
    method = multi(("style", -2.0))
    assert method.required(np.full(F, 3.0), np.ones(F)) == {"cond", "condition:style"}


def test_outside_an_interval_the_conditions_are_off_too():
    rule = Guidance(scale=IntervalSchedule(5.0, 0.0, 0.5), method=multi(*SCALES))
    surface = rule.surface(num_steps=5, num_frames=F, frame_map=OneToOneMap())
    rows = zip(surface.strength_KF, surface.weights_KF)
    assert [len(rule.method.required(s, w)) for s, w in rows] == [4, 4, 4, 1, 1]


def test_a_condition_of_one_name_and_two_texts_is_refused_in_a_list():
    conditions = [[{"name": "sky", "prompt": text, "scale": 1.0}] for text in ("red", "blue")]
    methods = [{"kind": "multi", "conditions": each} for each in conditions]
    with pytest.raises(ValueError, match=r"condition:sky branch sees different texts \('red' and"):
        Guidance(scale=3.0, method=methods)
