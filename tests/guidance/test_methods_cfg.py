"""Classifier-free guidance: the stock formula, bit for bit."""

import numpy as np
import pytest
import torch
from guidance_cases import SURFACE_BF, WEIGHT_BF, B, F, bits, video
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_runs import multi

from vidcfg.guidance.apply import combine
from vidcfg.guidance.rule import Method
from vidcfg.guidance.rules import RULES
from vidcfg.guidance.rules.cfg import Cfg


def guided_by(strength_BF, cond, uncond):
    combination = Cfg().combination(None, strength=strength_BF, weight=np.ones((B, F)))
    return combine({"cond": cond, "uncond": uncond}, combination)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [7.3, 6.0, 0.4, -1.7, 1.0000001])
def test_uniform_strength_is_the_stock_formula_bit_for_bit(scale, dtype):
    cond, uncond = video(1).to(dtype), video(0).to(dtype)
    guided = guided_by(np.full((B, F), scale), cond, uncond)
    assert guided.dtype == dtype
    assert torch.equal(bits(guided), bits(uncond + scale * (cond - uncond)))


def test_every_frame_has_its_own_strength():
    cond, uncond = video(1), video(0)
    guided = guided_by(SURFACE_BF, cond, uncond)
    for b in range(B):
        for f in range(F):
            u, c = uncond[b, f].double(), cond[b, f].double()
            want = u + SURFACE_BF[b, f] * (c - u)
            # three float32 roundings of numbers up to 60
            torch.testing.assert_close(guided[b, f].double(), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strength_one_is_cond_to_the_bit_and_zero_is_uncond(dtype):
    cond, uncond = video(1).to(dtype), video(0).to(dtype)
    cond[..., 0] = -0.0
    guided = guided_by(SURFACE_BF, cond, uncond)
    assert torch.equal(bits(guided[0, 1]), bits(cond[0, 1]))
    assert torch.equal(bits(guided[1, 0]), bits(cond[1, 0]))
    assert torch.equal(guided[0, 2], uncond[0, 2])
    assert torch.equal(guided[1, 3], uncond[1, 3])


@settings(deadline=None)
@given(st.lists(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-5, 15)), min_size=1, max_size=6))
def test_a_branch_is_required_exactly_where_its_coefficient_is_not_zero(strengths):
    needed = Cfg().required(np.array(strengths), np.ones(len(strengths)))
    assert ("cond" in needed) == any(s != 0 for s in strengths)
    assert ("uncond" in needed) == any(1 - s != 0 for s in strengths)


def test_weights_do_not_matter_once_strengths_are_known():
    cfg = Cfg()
    rows = (cfg.deltas(SURFACE_BF, w) for w in (WEIGHT_BF, 1 - WEIGHT_BF))
    assert all(np.array_equal(row["cond"], SURFACE_BF) and len(row) == 1 for row in rows)


def test_table_of_methods_holds_methods_under_their_own_names():
    made = {"multi": multi(("style", 1.0)), "distilled": RULES["distilled"](adapter="a")}
    for name, kind in RULES.items():
        method = made.get(name) or kind()
        assert isinstance(method, Method)
        assert method.kind == name
        assert method.branches[0] == "cond"
        assert set(method.sources()) == set(method.branches) - {"cond"}
