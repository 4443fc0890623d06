"""Rules inside real pipelines: solver steps of CFG++, counts, lists of rules from settings."""

import numpy as np
import pytest
import torch
from tiny_pipelines import BUILDERS, generators, ltx2

import vidcfg
from vidcfg.guidance.prediction import convert
from vidcfg.mini.pipeline import load_mini

PROMPTS = ["a red circle moving left over a navy background", "a blue cross growing"]
RULES = {
    "apg": {"eta": 0.2, "norm": 0.3, "momentum": -0.5},
    "zero_star": {"zero_init_steps": 1},
    "tcfg": {},
    "mambo": {"alpha": 1.0},
    "renorm": {"cap": 1.1},
    "freq": {"space_high": 0.5, "time_low": 1.5},
    "cfg_pp": {},
    "adaptive_stop": {"cosine": 0.9},
    "delta_reuse": {"every": 3},
}


@pytest.fixture(scope="module")
def mini():
    pipe = load_mini()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(pipe, num_steps=4, seeds=(0, 1)) -> torch.Tensor:
    return pipe(
        PROMPTS[: len(seeds)],
        num_frames=9,
        height=16,
        width=32,
        num_inference_steps=num_steps,
        output_type="latent",
        generator=generators(*seeds),
    ).frames


@pytest.fixture(scope="module")
def unguided(mini):
    with vidcfg.guide(mini, 1.0):
        return latents(mini)


@pytest.mark.parametrize("kind", sorted(RULES))
def test_rule_runs_what_its_plan_says_under_frame_weights(mini, unguided, kind):
    setting = vidcfg.Guidance(
        scale={
            "kind": "interval",
            "value": 0.8 if kind == "cfg_pp" else 4.0,
            "from": 0,
            "to": 0.9,
        },
        frames={"kind": "decay", "end": 0.0},
        method={"kind": kind, **RULES[kind]},
    )
    with vidcfg.guide(mini, setting) as trace:
        first = latents(mini)
        second = latents(mini)
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()
    assert trace.order == (f"method:{kind}",)
    if kind == "adaptive_stop":
        assert trace.planned.is_upper_bound
        assert trace.to_dict()["planned_is_upper_bound"] is True
        assert trace.total <= trace.planned.total
    else:
        assert trace.evaluations == trace.planned.evaluations
    assert not torch.equal(first, unguided)


def test_list_of_rules_has_strengths_of_its_own_in_each_term(mini):
    setting = vidcfg.Guidance(
        scale=4.0,
        method=[
            "cfg",
            {"kind": "apg", "scale": {"kind": "linear", "start": 3.0, "end": 1.0}},
            {
                "kind": "mambo",
                "convention": "w",
                "scale": 2.0,
                "frames": {"kind": "decay", "end": 0.0},
                "windows": [{"frames": [0, 3], "from": 0.0, "to": 0.5}],
            },
        ],
        frames={"kind": "ramp", "first": 0.5, "last": 1.0},
    )
    with vidcfg.guide(mini, setting) as trace:
        latents(mini)
    assert trace.order == ("method:cond + (cfg - cond) + (apg - cond) + (mambo - cond)",)
    ramp = np.array([0.5, 0.65625, 0.90625])
    decay = np.array([1.0, np.mean([0.875, 0.75, 0.625, 0.5]), np.mean([0.375, 0.25, 0.125, 0])])
    window = np.array([0.0, 0.5 / 4, decay[2]])
    for k, step in enumerate(trace.steps):
        terms = step.terms[0]
        np.testing.assert_allclose(terms["cfg"], 1 + 3 * ramp)
        np.testing.assert_allclose(terms["apg"], 1 + (2 - 2 * k / 3) * ramp, atol=1e-12)
        np.testing.assert_allclose(terms["mambo"], 1 + 2 * (decay if k < 2 else window))
    assert set(trace.to_dict()["steps"][0]["terms"][0]) == {"cfg", "apg", "mambo"}
    assert trace.evaluations == {"cond": 8, "uncond": 8} == trace.planned.evaluations


def spied(pipe, call):
    """(sample, prev_sample) of every solver step, and the branch predictions of every step."""
    session = type(pipe)._vidcfg_session
    outputs, steps = [], []
    forward, step = session.forward, pipe.scheduler.step

    def spy(module, original, expert, arguments):
        def recorded(**kwargs):
            result = original(**kwargs)
            outputs.append((result if isinstance(result, torch.Tensor) else result[0]).double())
            return result

        return forward(module, recorded, expert, arguments)

    def recorded_step(prediction, timestep, sample, *args, **kwargs):
        result = step(prediction, timestep, sample, *args, **kwargs)
        new = result[0] if isinstance(result, tuple) else result.prev_sample
        steps.append((sample.double(), new.double()))
        return result

    session.forward, pipe.scheduler.step = spy, recorded_step
    try:
        call()
    finally:
        del session.forward, pipe.scheduler.step
    return steps, outputs


def levels_of(scheduler, name):
    """(alpha, sigma) before and after every step, read off the scheduler by hand."""
    if name in ("cogvideox", "animatediff"):
        stride = 1000 // len(scheduler.timesteps)
        products = scheduler.alphas_cumprod.double()
        pairs = []
        for t in scheduler.timesteps.tolist():
            after = products[t - stride] if t >= stride else scheduler.final_alpha_cumprod
            pairs.append([(float(p) ** 0.5, (1 - float(p)) ** 0.5) for p in (products[t], after)])
        return pairs
    sigmas = scheduler.sigmas.tolist()
    if name == "svd":  # x / sqrt(sigma^2 + 1) has the level that the model sees
        sizes = [(1 / (s * s + 1) ** 0.5, s / (s * s + 1) ** 0.5) for s in sigmas]
    else:
        sizes = [(1 - s, s) for s in sigmas]
    if name == "mochi":
        sizes = [(sigma, alpha) for alpha, sigma in sizes]
    return list(zip(sizes, sizes[1:]))


KIND_OF = {
    "wan": "flow",
    "mochi": "flow_reversed",
    "cogvideox": "epsilon",
    "animatediff": "epsilon",
    "svd": "v_prediction",
}


@pytest.mark.parametrize("name", sorted(KIND_OF))
def test_cfg_pp_takes_x0_of_the_guided_and_noise_of_the_unconditional_prediction(name):
    tiny = BUILDERS[name]()
    if name == "cogvideox":
        tiny.pipe.scheduler.register_to_config(clip_sample=False)
    lam = 0.6
    setting = vidcfg.Guidance(scale=lam, method="cfg_pp", passes="sequential")
    with vidcfg.guide(tiny.pipe, setting, **tiny.negative) as trace:
        steps, outputs = spied(tiny.pipe, lambda: tiny.unguided(generator=generators(0, 1)))
    assert len(outputs) == 2 * len(steps)
    assert trace.evaluations == trace.planned.evaluations
    for k, ((alpha, sigma), (next_alpha, next_sigma)) in enumerate(
        levels_of(tiny.pipe.scheduler, name)
    ):
        x, new = steps[k]
        c, u = outputs[2 * k : 2 * k + 2]
        size = 1.0
        if name == "svd":
            size, x = next_alpha, x * alpha
        level = {"alpha": alpha, "sigma": sigma}
        x0 = convert(u + lam * (c - u), x, KIND_OF[name], "sample", **level)
        noise = convert(u, x, KIND_OF[name], "epsilon", **level)
        want = (next_alpha * x0 + next_sigma * noise) / size
        # float32 steps of values of the size of x0, which is large where alpha is small
        error = (new - want).abs().max() / want.abs().max()
        assert error < 2e-5, (k, float(error))


@pytest.mark.parametrize("name", ["wan22", "cogvideox15", "sd15"])
def test_cfg_pp_refuses_other_solvers_by_name(name):
    tiny = BUILDERS[name]()
    solver = type(tiny.pipe.scheduler).__name__
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=0.6, method="cfg_pp"), **tiny.negative),
        pytest.raises(ValueError, match=rf"uses {solver}\. Use sampling\.scheduler: flow_euler"),
    ):
        tiny.unguided(generator=generators(0, 1))


def test_cfg_pp_refuses_a_solver_that_clips():
    tiny = BUILDERS["cogvideox"]()
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=0.6, method="cfg_pp"), **tiny.negative),
        pytest.raises(ValueError, match=r"clip_sample=True\. Use clip_sample=False"),
    ):
        tiny.unguided(generator=generators(0, 1))


def test_cfg_pp_refuses_a_call_that_adds_noise():
    tiny = BUILDERS["animatediff"]()
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=0.6, method="cfg_pp"), **tiny.negative),
        pytest.raises(ValueError, match=r"eta=1\. Pass eta=0\.0"),
    ):
        tiny.unguided(generator=generators(0, 1), eta=1.0)


@pytest.mark.parametrize("name", ["ltx", "wan_i2v"])
def test_space_of_tokens_and_condition_channels_is_found(name):
    tiny = BUILDERS[name]()
    setting = vidcfg.Guidance(
        scale=3.0,
        method=[{"kind": "freq", "space_high": 0.3}, {"kind": "apg", "momentum": -0.5}],
    )
    with vidcfg.guide(tiny.pipe, setting, **tiny.negative) as trace:
        found = tiny.unguided(generator=generators(0, 1))
    assert torch.isfinite(found).all()
    assert trace.evaluations == trace.planned.evaluations


@pytest.mark.parametrize("name", ["wan", "wan_i2v", "ltx"])
def test_zeroed_first_step_evaluates_nothing_and_moves_nothing(name):
    tiny = BUILDERS[name]()
    with vidcfg.guide(
        tiny.pipe, vidcfg.Guidance(scale=3.0, method="zero_star"), **tiny.negative
    ) as trace:
        steps, _ = spied(tiny.pipe, lambda: tiny.unguided(generator=generators(0, 1)))
    assert trace.steps[0].evaluations == {}
    assert torch.equal(steps[0][0], steps[0][1])
    assert not torch.equal(steps[1][0], steps[1][1])
    assert trace.evaluations == trace.planned.evaluations


def test_second_stream_keeps_its_branches_under_every_rule():
    tiny = ltx2()
    for method in ("zero_star", ["cfg", {"kind": "mambo", "alpha": 1.0}], "delta_reuse"):
        setting = vidcfg.Guidance(scale=3.0, method=method)
        with vidcfg.guide(tiny.pipe, setting, **tiny.negative) as trace:
            found = tiny.unguided(generator=generators(0, 1), audio_guidance_scale=4.0)
        assert torch.isfinite(found).all()
        assert trace.evaluations == trace.planned.evaluations
        assert all(set(step.evaluations) == {"cond", "uncond"} for step in trace.steps)


@pytest.mark.parametrize("setting", [{"scale": 3.0, "method": "zero_star"}, {"scale": 0.0}])
def test_sound_without_guidance_is_made_on_steps_whose_video_needs_no_prompt(setting):
    tiny, made = ltx2(num_steps=2), []
    for audio_scale in (1.0, 1.0 + 1e-6):
        call = tiny.shape | tiny.positive | {"audio_guidance_scale": audio_scale}
        with vidcfg.guide(tiny.pipe, vidcfg.Guidance(**setting), **tiny.negative) as trace:
            made.append(tiny.pipe(**call, guidance_scale=1.0, generator=generators(0, 1)))
        assert trace.evaluations == trace.planned.evaluations
    # a millionth of guidance, on values of about 1
    torch.testing.assert_close(made[0].audio, made[1].audio, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made[0].frames, made[1].frames, rtol=1e-4, atol=1e-4)


def test_preview_shows_the_strengths_of_every_rule():
    from vidcfg.render.config import RenderConfig
    from vidcfg.render.forecast import forecast_of

    config = RenderConfig(
        schema=1,
        name="list",
        model={"kind": "mini"},
        prompts=[{"text": "a red circle"}],
        seeds=[0],
        video={"num_frames": 9, "height": 32, "width": 32, "fps": 8.0},
        sampling={"num_steps": 5, "scheduler": "flow_euler"},
        guidance={"scale": 4.0, "method": ["cfg", {"kind": "apg", "scale": 2.0}]},
        output={"dir": "out"},
    )
    surfaces = forecast_of(config).surfaces
    assert list(surfaces) == ["cfg", "apg"]
    assert (surfaces["cfg"].strength_KT == 4).all()
    assert (surfaces["apg"].strength_KT == 2).all()
