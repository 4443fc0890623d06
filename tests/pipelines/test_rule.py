"""Settings, as a user writes them, become the rule that the engine reads."""

import numpy as np
import pytest

import vidcfg
from vidcfg.guidance.frame_map import CausalMap
from vidcfg.guidance.plan import SampleRows, plan_run
from vidcfg.render.config import RenderConfig
from vidcfg.render.forecast import forecast_of


def surface(num_steps: int = 5, **settings):
    rule = vidcfg.Guidance(**settings)
    return rule.surface(num_steps=num_steps, num_frames=9, frame_map=CausalMap(4), fps=8.0)


@pytest.mark.parametrize(
    ("scale", "w"),
    [
        (6.0, 5.0),
        ([5.0, 4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0, 0.0]),
        (
            {"kind": "linear", "start": 8.0, "end": 1.0},
            {"kind": "linear", "start": 7.0, "end": 0.0},
        ),
        (
            {"kind": "step", "start": 8.0, "end": 2.0, "switch": 0.4},
            {"kind": "step", "start": 7.0, "end": 1.0, "switch": 0.4},
        ),
        (
            {"kind": "interval", "value": 4.0, "from": 0.2, "to": 0.6},
            {"kind": "interval", "value": 3.0, "from": 0.2, "to": 0.6},
        ),
        (
            {"kind": "knots", "points": [[0.0, 5.0], [1.0, 2.0]]},
            {"kind": "knots", "points": [[0.0, 4.0], [1.0, 1.0]]},
        ),
    ],
)
def test_w_convention_is_scale_minus_one(scale, w):
    method = {"kind": "cfg", "convention": "w"}
    ours, plain = surface(scale=w, method=method), surface(scale=scale)
    # one ulp of the shift by 1 in cosine and knots
    np.testing.assert_allclose(ours.strength_KF, plain.strength_KF, rtol=4e-16)


def test_words_of_the_config_reach_the_surface():
    got = surface(
        scale={"kind": "cosine", "start": 9.0, "end": 1.0},
        frames={"kind": "keyframes", "at": ["first", "1.0s"], "floor": 0.25, "reach": 2},
        windows=[{"frames": [5, 8], "from": 0.0, "to": 0.5}],
    )
    p = np.arange(5) / 4
    np.testing.assert_allclose(got.scale_K, 1 + 8 * (1 + np.cos(np.pi * p)) / 2, rtol=1e-15)
    weights = np.array([1, 0.625, 0.25, 0.25, 0.25, 0.25, 0.25, 0.625, 1])
    np.testing.assert_allclose(got.weights_KT[0], weights, rtol=1e-15)
    assert (got.weights_KT[3, 5:] == 0).all()
    np.testing.assert_allclose(got.weights_KF[0], [1.0, 0.625, 1.0], rtol=1e-15)


def test_rescale_zero_is_no_limit():
    rule = vidcfg.Guidance(scale=3.0, rescale=0.0)
    assert rule.rescale.is_off
    assert rule.order() == ("method:cfg",)


def test_limits_are_applied_in_the_fixed_order():
    setting = vidcfg.Guidance(scale=3.0, clamp=4.0, threshold={"floor": 3.0}, rescale=0.7)
    assert setting.order() == ("method:cfg", "rescale", "threshold", "clamp")


def render_config(**guidance) -> RenderConfig:
    return RenderConfig(
        schema=1,
        name="cost",
        model={"kind": "mini"},
        prompts=[
            {"text": "a red circle", "negative": "blue"},
            {"text": "a blue cross", "negative": "red"},
        ],
        seeds=[0, 1, 2],
        video={"num_frames": 9, "height": 32, "width": 32, "fps": 8.0},
        sampling={"num_steps": 5, "scheduler": "heun"},
        guidance=guidance,
        output={"dir": "out"},
    )


def test_cost_of_a_render_counts_each_prompt_seed_and_second_order_call():
    scale = {"kind": "interval", "value": 4.0, "from": 0.5, "to": 0.75}
    plan = forecast_of(render_config(scale=scale)).plan()
    assert plan.naive == 2 * 6 * 9
    assert plan.evaluations == {"cond": 6 * 9, "uncond": 6 * 4}


def test_cost_of_three_branches_counts_the_negative_pass():
    config = render_config(scale=4.0, method={"kind": "dual", "negative_scale": 1.0})
    assert forecast_of(config).plan().evaluations == {"cond": 54, "uncond": 54, "negative": 54}


def test_surface_of_a_render_covers_its_steps_and_frames():
    assert forecast_of(render_config(scale=4.0)).surfaces["cfg"].strength_KT.shape == (5, 9)


def test_empty_side_of_dual_is_one_text_for_all_negative_prompts():
    config = render_config(scale=4.0, method={"kind": "dual", "negative_scale": 1.0})
    forecast = forecast_of(config)
    units = [(forecast.texts(prompt), seed) for prompt in config.prompts for seed in config.seeds]
    texts, starts = zip(*units)
    samples = SampleRows.joined([forecast.samples] * len(units))
    how = {"share": config.guidance.share, "evaluations_per_step": forecast.facts.calls}
    plan = plan_run(samples, starts=starts, texts=texts, **how)
    # at the first call the three seeds are shared by both prompts on the empty side alone
    assert plan.per_step[0] == {"cond": 6, "uncond": 3, "negative": 6}
