"""Which step a call of the denoiser belongs to, and the noise level that it begins with."""

from dataclasses import replace
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from tiny_pipelines import BUILDERS, generators, random

import vidcfg
from vidcfg.pipelines.families import FAMILIES
from vidcfg.pipelines.steps import (
    FramePlace,
    RunPlace,
    begin_of,
    noise_levels,
    step_of_call,
    steps_of,
)


def _set(scheduler, num_steps):
    scheduler.set_timesteps(num_steps)
    return scheduler


def facts_of(scheduler):
    """What a pipeline with this scheduler and one model tells of its steps."""
    return steps_of(SimpleNamespace(scheduler=scheduler), FAMILIES["svd"])


def test_first_order_schedulers_call_once_a_step():
    scheduler = _set(diffusers.DDIMScheduler(), 5)
    assert step_of_call(scheduler) == (0, 1, 2, 3, 4)
    assert facts_of(scheduler)["calls"] == (1, 1, 1, 1, 1)


def test_second_order_schedulers_call_twice_but_in_the_last_step():
    scheduler = _set(diffusers.FlowMatchHeunDiscreteScheduler(), 4)
    assert facts_of(scheduler)["calls"] == (2, 2, 2, 1)
    assert step_of_call(scheduler) == (0, 0, 1, 1, 2, 2, 3)


@pytest.mark.parametrize(
    ("skip", "num_steps", "calls"),
    [
        (True, 5, (2, 1, 1, 1, 1)),
        (True, 2, (2, 1)),
        (True, 1, (1,)),
        (False, 6, (4, 4, 4, 1, 1, 1)),
    ],
)
def test_pndm_repeats_its_first_steps_and_still_makes_as_many_as_asked_for(skip, num_steps, calls):
    scheduler = _set(diffusers.PNDMScheduler(skip_prk_steps=skip), num_steps)
    assert facts_of(scheduler)["calls"] == calls
    sigmas = facts_of(scheduler)["sigmas_K"]
    assert sigmas.shape == (num_steps,)
    assert (np.diff(sigmas) < 0).all()


def test_a_step_of_pndm_moves_the_sample_once(monkeypatch):
    """The sample before the first call of a step is the one that the step before it ended with."""
    scheduler = _set(diffusers.PNDMScheduler(skip_prk_steps=True), 4)
    reached = {}
    original = scheduler._get_prev_sample

    def spy(sample, timestep, prev_timestep, model_output):
        reached[len(reached)] = (int(timestep), int(prev_timestep))
        return original(sample, timestep, prev_timestep, model_output)

    monkeypatch.setattr(scheduler, "_get_prev_sample", spy)
    x = torch.ones(2, 3)
    for t in scheduler.timesteps:
        x = scheduler.step(torch.ones_like(x), t, x).prev_sample
    # calls 0 and 1 both go from the first level to the second
    assert reached[0] == reached[1]
    first_calls = [step_of_call(scheduler).index(k) for k in range(4)]
    assert [reached[call][0] for call in first_calls] == [750, 500, 250, 0]


@pytest.mark.parametrize("name", ["Euler", "Heun", "KDPM2", "KDPM2Ancestral", "LMS"])
def test_the_level_of_a_call_is_the_one_that_the_scheduler_scales_its_input_to(name):
    scheduler = _set(getattr(diffusers, f"{name}DiscreteScheduler")(use_karras_sigmas=True), 4)
    told, x = noise_levels(scheduler, range(len(scheduler.timesteps))), torch.ones(2, 3)
    for t, (alpha, sigma) in zip(scheduler.timesteps, told, strict=True):
        scale = float(scheduler.scale_model_input(torch.ones(1), t))
        assert (alpha, alpha**2 + sigma**2) == pytest.approx((scale, 1), rel=1e-5)
        x = scheduler.step(torch.ones_like(x), t, x).prev_sample


def test_the_level_of_a_rectified_flow_and_of_a_scaling_of_its_own():
    flow = _set(diffusers.LTXEulerAncestralRFScheduler(), 4)
    assert noise_levels(flow, range(4)) == [(1 - s, s) for s in flow.sigmas[:4].tolist()]
    assert noise_levels(_set(diffusers.EDMEulerScheduler(), 3), range(3)) == [None] * 3


INSIDE = {
    "sd15": "StableDiffusionImg2ImgPipeline",
    "cogvideox": "CogVideoXVideoToVideoPipeline",
    "wan": "WanVideoToVideoPipeline",
}


@pytest.fixture
def inside(monkeypatch):
    """family -> its tiny pipeline that starts from a picture or video, with six steps."""

    def build(family, scheduler=None):
        tiny, cls = BUILDERS[family](), getattr(diffusers, INSIDE[family])
        covered = replace(FAMILIES[family], name="inside", pipelines=(cls.__name__,))
        monkeypatch.setitem(FAMILIES, "inside", covered)
        parts = tiny.pipe.components | ({} if scheduler is None else {"scheduler": scheduler})
        parts = {name: part for name, part in parts.items() if name != "transformer_2"}
        pipe = cls(**parts, **{"requires_safety_checker": False} if family == "sd15" else {})
        pipe.set_progress_bar_config(disable=True)
        shape = tiny.shape | {"num_inference_steps": 6}
        del shape["height"], shape["width"]
        if family == "sd15":
            given = {"image": random(2, 4, 8, 16, seed=8)}
        else:
            del shape["num_frames"]
            # A call with latents of its own needs no video.
            layout = {"cogvideox": (2, 3, 4, 2, 4), "wan": (2, 16, 3, 2, 4)}[family]
            given, shape = (
                {"latents": random(*layout, seed=8)},
                shape | {"height": 16, "width": 32},
            )
        return replace(tiny, pipe=pipe, shape=shape | given)

    return build


def _by_hand(tiny, strengths, combine, **call):
    """Latents of a loop whose denoiser calls are guided one by one with the given strengths."""
    forward, left = tiny.denoiser.forward, list(strengths)
    (negative,) = tiny.negative.values()

    def guided(sample=None, timestep=None, **given):
        at = {"timestep": timestep} | ({} if sample is None else {"sample": sample})
        cond = forward(**at, **given)[0]
        repeats = len(given["encoder_hidden_states"]) // len(negative)  # one for every frame
        text = {"encoder_hidden_states": negative.repeat_interleave(repeats, 0)}
        uncond = forward(**at, **given | text)[0]
        noisy = given.get("hidden_states", sample)
        outputs = (combine(cond, uncond, left.pop(0), noisy, timestep),)
        return SimpleNamespace(sample=outputs[0]) if given.get("return_dict", True) else outputs

    tiny.denoiser.forward = guided
    try:
        latents = tiny.unguided(generator=generators(0, 1), **call)
    finally:
        del tiny.denoiser.forward
    assert left == []
    return latents


def _cfg(cond, uncond, strength, noisy, timestep):
    return uncond + strength * (cond - uncond)


SCHEDULE = [1.0, 1.0, 7.0, 2.0, 5.0, 3.0]
PNDM = {"skip_prk_steps": True, "steps_offset": 1}


@pytest.mark.parametrize(
    ("family", "scheduler", "strength", "steps"),
    [
        ("sd15", diffusers.DDIMScheduler(steps_offset=1), 0.5, (3, 4, 5)),
        ("sd15", diffusers.HeunDiscreteScheduler(), 0.7, (2, 2, 3, 3, 4, 4, 5)),
        ("sd15", diffusers.KDPM2DiscreteScheduler(), 0.5, (3, 3, 4, 4, 5)),
        ("sd15", diffusers.PNDMScheduler(**PNDM), 0.9, (1, 1, 2, 3, 4, 5)),
        ("cogvideox", None, 0.5, (3, 4, 5)),
        ("wan", None, 0.7, (2, 3, 4, 5)),
    ],
)
def test_run_that_starts_inside_reads_the_steps_that_run(
    inside, family, scheduler, strength, steps
):
    tiny = inside(family, scheduler)
    want = _by_hand(tiny, [SCHEDULE[k] for k in steps], _cfg, strength=strength)
    guidance = vidcfg.Guidance(scale={"kind": "list", "values": SCHEDULE}, passes="sequential")
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        got = tiny.unguided(generator=generators(0, 1), strength=strength)
    torch.testing.assert_close(got, want, rtol=3e-5, atol=3e-5)
    assert tuple(step.step for step in trace.steps) == steps
    guided = sum(SCHEDULE[k] != 1 for k in steps)
    assert trace.evaluations == {"cond": 2 * len(steps), "uncond": 2 * guided}
    assert trace.planned.evaluations == trace.evaluations
    assert begin_of(tiny.pipe, {"strength": strength}) == len(tiny.pipe.scheduler.timesteps) - len(
        steps
    )


def test_rule_in_x0_reads_the_noise_level_that_the_model_sees(inside):
    tiny = inside("cogvideox")
    alphas = tiny.pipe.scheduler.alphas_cumprod.double()

    def apg(cond, uncond, strength, noisy, timestep):
        alpha, sigma = alphas[timestep[0]] ** 0.5, (1 - alphas[timestep[0]]) ** 0.5
        x0, base = ((noisy.double() - sigma * p.double()) / alpha for p in (cond, uncond))
        change, frame = x0 - base, (2, 3, 4)
        along = (change * x0).sum(frame, True) / (x0 * x0).sum(frame, True) * x0
        guided = x0 + (strength - 1) * (change - along)
        return ((noisy.double() - alpha * guided) / sigma).to(cond.dtype)

    want = _by_hand(tiny, [4.0] * 3, apg, strength=0.5)
    guidance = vidcfg.Guidance(scale=4.0, method={"kind": "apg"}, passes="sequential")
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative):
        got = tiny.unguided(generator=generators(0, 1), strength=0.5)
    torch.testing.assert_close(got, want, rtol=3e-5, atol=3e-5)


def test_difference_is_made_anew_where_a_run_starts_inside(inside):
    tiny = inside("sd15", diffusers.DDIMScheduler(steps_offset=1))
    guidance = vidcfg.Guidance(scale=4.0, method={"kind": "delta_reuse", "every": 2})
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        tiny.unguided(generator=generators(0, 1), strength=0.5)
    assert [step.evaluations.get("uncond", 0) for step in trace.steps] == [2, 0, 2]


def test_loop_that_begins_anew_is_a_new_run():
    tiny = BUILDERS["animatediff"]()
    tiny.pipe.enable_free_init(num_iters=2)
    want = _by_hand(tiny, [1.0, 6.0, 3.0] * 2, _cfg)
    guidance = vidcfg.Guidance(scale={"kind": "list", "values": [1.0, 6.0, 3.0]})
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        got = tiny.unguided(generator=generators(0, 1))
    torch.testing.assert_close(got, want, rtol=3e-5, atol=3e-5)
    assert (trace.num_runs, trace.evaluations) == (2, {"cond": 6, "uncond": 4})


def _place(scheduler, given, family="wan"):
    return RunPlace(SimpleNamespace(scheduler=scheduler), FAMILIES[family], {"timestep": given})


def test_step_that_cannot_be_told_is_refused():
    scheduler = _set(diffusers.DDIMScheduler(), 5)
    t = scheduler.timesteps
    with pytest.raises(ValueError, match="timestep 123, which its DDIM.*Family.model_timesteps"):
        _place(scheduler, torch.tensor([123, 123]))
    with pytest.raises(ValueError, match="no argument 'timestep'.*Family.timestep"):
        _place(scheduler, None)
    place = _place(scheduler, t[1].expand(2))
    assert place.goes_on({"timestep": t[3].expand(2)})
    assert place.index == 3
    with pytest.raises(ValueError, match=f"again at {t[3]}.*Switch off"):
        place.goes_on({"timestep": t[3].expand(2)})
    assert not place.goes_on({"timestep": t[0].expand(2)})
    # An image that is given has a timestep of its own, here a larger one that is none of the list.
    assert _place(scheduler, torch.tensor([997.5, float(t[2])])).index == 2


def test_timesteps_that_rounding_makes_equal_go_in_order():
    scheduler = _set(diffusers.FlowMatchEulerDiscreteScheduler(shift=12.0), 50)
    given = [t.expand(2).to(torch.bfloat16) / 1000 for t in scheduler.timesteps]
    assert len({float(t[0]) for t in given}) < 50
    place = _place(scheduler, given[0], "flux")
    seen = [place.index]
    for t in given[1:]:
        assert place.goes_on({"timestep": t})
        seen.append(place.index)
    assert seen == list(range(50))


def test_tokens_that_are_given_do_not_hide_the_step():
    scheduler = _set(diffusers.FlowMatchEulerDiscreteScheduler(), 5)
    tokens = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]] * 2) * scheduler.timesteps[2]
    assert _place(scheduler, tokens).index == 2


def test_frames_at_other_timesteps_than_the_pipeline_tells_are_refused():
    family = FAMILIES["skyreels_v2_df"]
    timesteps, places = torch.tensor([[900, 999], [500, 900]]), torch.tensor([[1, 0], [2, 1]])
    table = [timesteps, places, places > 0, [(0, 2), (0, 2)]]
    # The second frame has not begun: its timestep is not looked at.
    place = FramePlace(family, table, {"timestep": torch.tensor([[900, 7]] * 3)})
    assert place.steps_NF.tolist() == [[0, -1], [1, 0]]
    assert not place.is_joint
    assert place.goes_on({"timestep": torch.tensor([[500, 900]] * 3)})
    with pytest.raises(ValueError, match="denoiser call 3 .* generate_timestep_matrix tells"):
        place.goes_on({"timestep": torch.tensor([[500, 900]] * 3)})
    with pytest.raises(ValueError, match="denoiser call 1 .* other timesteps"):
        FramePlace(family, table, {"timestep": torch.tensor([[900, 7], [901, 7]])})
    with pytest.raises(ValueError, match="base_num_frames that is not below num_frames"):
        FramePlace(family, [*table[:3], [(0, 1), (0, 2)]], {"timestep": timesteps})


@pytest.mark.parametrize("name", ["wan", "ltx", "cogvideox"])
def test_a_timestep_that_is_an_entry_of_the_list_is_told_without_reading_it(name, monkeypatch):
    """A step on a GPU then waits for no number; the first call of a run reads the list."""
    tiny = BUILDERS[name]()
    stock = tiny.stock(3.0, generator=generators(0, 1))
    monkeypatch.setattr(torch.Tensor, "unique", lambda given: pytest.fail("read"))
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative) as trace:
        assert torch.equal(tiny.unguided(generator=generators(0, 1)), stock)
    assert [step.step for step in trace.steps] == list(range(tiny.shape["num_inference_steps"]))


def test_an_entry_of_another_list_is_read():
    scheduler = _set(diffusers.DDIMScheduler(), 5)
    place = _place(scheduler, scheduler.timesteps[1].expand(2))
    assert place.goes_on({"timestep": scheduler.timesteps.flip(0)[1:2].expand(2)})
    assert place.index == 3


def test_the_lists_of_a_scheduler_are_read_once_however_many_steps_there_are(monkeypatch):
    """A GPU is waited for at each reading: a list is copied as a whole, no entry alone."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(6)
    copies, sigmas = [], scheduler.sigmas
    monkeypatch.setattr(torch.Tensor, "__float__", lambda tensor: pytest.fail("one entry"))
    told = SimpleNamespace(tolist=lambda: copies.append(1) or sigmas.tolist())
    monkeypatch.setattr(scheduler, "sigmas", told)
    levels = noise_levels(scheduler, range(6))
    assert levels == [(1 - sigma, sigma) for sigma in sigmas.tolist()[:6]]
    assert len(copies) == 1


def test_steps_that_are_left_to_a_refiner_are_not_planned():
    """The schedule is that of the whole run, of which the call makes the first part."""
    tiny = BUILDERS["sdxl"](num_steps=10)
    scale = {"kind": "linear", "start": 10.0, "end": 1.0}
    with vidcfg.guide(tiny.pipe, {"scale": scale}, **tiny.negative) as trace:
        tiny.unguided(generator=generators(0, 1), denoising_end=0.5)
    assert trace.planned.evaluations == trace.evaluations == {"cond": 10, "uncond": 10}
    assert [float(step.strength_BF[1, 0]) for step in trace.steps] == [10.0, 9.0, 8.0, 7.0, 6.0]
