"""Two experts: a scale for each by name, and evaluations left out in each."""

import numpy as np
import pytest
import torch
from tiny_pipelines import BUILDERS, generators

import vidcfg


def guided(tiny, scale, **settings):
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=scale, **settings), **tiny.negative) as t:
        latents = tiny.unguided(generator=generators(0, 1))
    return latents, t


def test_experts_with_scales_of_their_own_equal_the_stock_pipeline_bit_for_bit():
    tiny = BUILDERS["wan22"]()
    stock = tiny.stock(4.0, guidance_scale_2=2.5, generator=generators(0, 1))
    ours, trace = guided(tiny, {"high": 4.0, "low": 2.5})
    assert torch.equal(ours, stock)
    assert [s.expert for s in trace.steps] == ["high", "high", "low", "low"]
    assert [s.strength_BF[0, 0] for s in trace.steps] == [4.0, 4.0, 2.5, 2.5]


@pytest.mark.parametrize(
    ("scale", "uncond"),
    [({"high": 1.0, "low": 3.0}, [0, 0, 2, 2]), ({"high": 3.0, "low": 1.0}, [2, 2, 0, 0])],
)
def test_one_expert_may_be_off_and_runs_no_unconditional_pass(scale, uncond):
    tiny = BUILDERS["wan22"]()
    ours, trace = guided(tiny, scale)
    assert [s.evaluations.get("uncond", 0) for s in trace.steps] == uncond
    assert trace.evaluations == trace.planned.evaluations
    # the stock pipeline guides the low expert only while the high one is guided too
    if scale["high"] > 1:
        stock = tiny.stock(3.0, guidance_scale_2=1.0, generator=generators(0, 1))
        # u + 1 * (c - u) rounds; a frame that is off is c itself
        torch.testing.assert_close(ours, stock, rtol=2e-5, atol=2e-5)


def test_each_expert_takes_a_schedule_and_all_share_the_frame_weights():
    tiny = BUILDERS["wan22"]()
    scale = {"high": {"kind": "linear", "start": 7.0, "end": 1.0}, "low": 2.0}
    _, trace = guided(tiny, scale, frames={"kind": "ramp", "first": 1.0, "last": 0.5})
    peak = np.array([7.0, 5.0, 2.0, 2.0])
    np.testing.assert_allclose(trace.surfaces[0].strength_KT[:, 0], peak, rtol=1e-15)
    np.testing.assert_allclose(trace.surfaces[0].strength_KT[:, -1], 1 + (peak - 1) / 2)


def test_missing_and_unknown_experts_are_named():
    with pytest.raises(ValueError, match="experts high, but this pipeline has high, low"):
        guided(BUILDERS["wan22"](), {"high": 4.0})
    with pytest.raises(ValueError, match="one model, without experts"):
        guided(BUILDERS["wan"](), {"high": 4.0, "low": 2.0})


def test_an_expert_that_cannot_be_guided_leaves_the_other_as_it_was():
    tiny = BUILDERS["wan22"]()
    stock = tiny.stock(4.0, guidance_scale_2=2.5, generator=generators(0, 1))
    other = BUILDERS["wan"]()
    other.pipe.transformer = tiny.pipe.transformer_2

    def meanwhile(*_):
        with pytest.raises(ValueError, match="at work in another guided call"):
            guided(tiny, 3.0)
        return {}

    with vidcfg.guide(other.pipe, 3.0, **other.negative):
        other.unguided(generator=generators(0, 1), callback_on_step_end=meanwhile)
    assert "forward" not in vars(tiny.pipe.transformer)
    again = tiny.stock(4.0, guidance_scale_2=2.5, generator=generators(0, 1))
    assert torch.equal(again, stock)


def test_scale_of_the_second_expert_in_the_call_is_refused():
    tiny = BUILDERS["wan22"]()
    with vidcfg.guide(tiny.pipe, 4.0, **tiny.negative):
        with pytest.raises(ValueError, match="guidance_scale_2=3.0.*'low': 3.0"):
            tiny.unguided(generator=generators(0, 1), guidance_scale_2=3.0)
        off = tiny.unguided(generator=generators(0, 1), guidance_scale_2=1.0)
        assert torch.equal(off, tiny.unguided(generator=generators(0, 1)))
