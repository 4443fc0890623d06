"""The embedded scale of guidance-distilled models: per step, and per frame from two passes."""

import numpy as np
import pytest
import torch
from guided_runs import frame_of, record_inside
from tiny_pipelines import BUILDERS, generators

import vidcfg
from vidcfg.guidance.rules.embedded import scale_at
from vidcfg.pipelines.changes.embedded import with_scales

RAMP = {"kind": "ramp", "first": 1.0, "last": 0.0}


@pytest.mark.parametrize("name", ["hunyuan_video", "flux"])
def test_a_uniform_scale_is_the_pipelines_own_bit_for_bit_in_one_pass(name):
    tiny = BUILDERS[name]()
    own = tiny.unguided(guidance_scale=4.5, generator=generators(0, 1))
    guidance = vidcfg.Guidance(scale=4.5, method="embedded")
    with vidcfg.guide(tiny.pipe, guidance) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, own)
    assert trace.evaluations == {"embedded": 6} == trace.planned.evaluations


def test_scale_one_runs_the_pass_at_one():
    tiny = BUILDERS["hunyuan_video"]()
    own = tiny.unguided(guidance_scale=1.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=1.0, method="embedded")) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, own)
    assert trace.evaluations == {"cond": 6} == trace.planned.evaluations


def scales_seen(tiny, guidance, **negative):
    seen = []
    with vidcfg.guide(tiny.pipe, guidance, **negative) as trace:
        session = type(tiny.pipe)._vidcfg_session
        forward = session.forward

        def spy(module, original, expert, arguments):
            def noted(**kwargs):
                seen.append(kwargs["guidance"].tolist())
                return original(**kwargs)

            return forward(module, noted, expert, arguments)

        session.forward = spy
        try:
            tiny.unguided(generator=generators(0, 1))
        finally:
            del session.forward
    return seen, trace


def test_a_schedule_sets_the_scale_of_every_step_for_every_sample():
    tiny = BUILDERS["hunyuan_video"]()
    settings = [
        vidcfg.Guidance(scale=scale, method="embedded")
        for scale in ({"kind": "linear", "start": 6.0, "end": 2.0}, 3.0)
    ]
    seen, _ = scales_seen(tiny, settings)
    assert seen == [[6000.0, 3000.0], [4000.0, 3000.0], [2000.0, 3000.0]]


def test_frames_are_mixed_from_the_passes_at_one_and_at_the_scale():
    tiny = BUILDERS["hunyuan_video"]()
    guidance = vidcfg.Guidance(scale=5.0, method="embedded", frames=RAMP)
    seen, trace = scales_seen(tiny, guidance)
    assert seen == [[1000.0, 1000.0], [5000.0, 5000.0]] * 3
    assert trace.evaluations == {"cond": 6, "embedded": 6} == trace.planned.evaluations
    with vidcfg.guide(tiny.pipe, guidance) as trace:
        _, outputs, used = record_inside(tiny, generators(0, 1))
    weight_F = trace.surfaces[0].weights_KF[0]
    assert weight_F[0] == 1
    assert weight_F[-1] < weight_F[1] < 1
    for k, prediction in enumerate(used):
        low, high = outputs[2 * k : 2 * k + 2]
        for f, w in enumerate(weight_F):
            a, b, mixed = (
                frame_of(t, "hunyuan_video", f, len(weight_F)).double()
                for t in (low, high, prediction)
            )
            torch.testing.assert_close(mixed, (1 - w) * a + w * b, rtol=0, atol=1e-6)


def test_other_rules_leave_the_pipelines_own_scale_alone():
    tiny = BUILDERS["hunyuan_video"]()
    seen, _ = scales_seen(tiny, vidcfg.Guidance(scale=3.0), **tiny.negative)
    assert seen == [[6000.0, 6000.0]] * 6  # the pipeline's default, in both branches


def test_scale_that_an_lcm_unet_takes_is_the_users():
    tiny = BUILDERS["sd15"]()
    config = {n: v for n, v in tiny.pipe.unet.config.items() if not n.startswith("_")}
    torch.manual_seed(0)
    unet = type(tiny.pipe.unet)(**config | {"time_cond_proj_dim": 6}).eval()
    tiny.pipe.register_modules(unet=unet)
    own = tiny.unguided(guidance_scale=8.0, generator=generators(0, 1))
    assert not torch.equal(own, tiny.unguided(guidance_scale=1.0, generator=generators(0, 1)))
    seen = []
    with vidcfg.guide(tiny.pipe, 1.0):
        ours = tiny.unguided(guidance_scale=8.0, generator=generators(0, 1))
    assert torch.equal(ours, own)
    handle = unet.time_embedding.register_forward_pre_hook(
        lambda module, args: seen.append(args[1])
    )
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative) as trace:
        tiny.unguided(guidance_scale=8.0, generator=generators(0, 1))
    handle.remove()
    assert trace.evaluations == {"cond": 6, "uncond": 6}
    want = tiny.pipe.get_guidance_scale_embedding(torch.full((4,), 7.0), embedding_dim=6)
    for given in seen:  # both branches in one call
        torch.testing.assert_close(given, want)


def test_a_model_without_an_embedded_scale_is_refused():
    tiny = BUILDERS["wan"]()
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, method="embedded")),
        pytest.raises(ValueError, match="takes no guidance scale as an input"),
    ):
        tiny.unguided(generator=generators(0, 1))


def test_the_scale_of_a_step_is_read_off_its_largest_frame_weight():
    weight = np.array([0.0, 0.25, -0.5])
    assert scale_at(1 + (7.5 - 1) * weight, weight) == pytest.approx(7.5)
    assert scale_at(np.ones(3), np.zeros(3)) == 1


def test_the_input_is_rounded_as_the_pipelines_round_it():
    own = torch.full((2,), 6.0, dtype=torch.bfloat16) * 1000
    ours = with_scales(own, {0: 4.5}, 1000.0)
    assert ours.tolist() == [4512.0, 6016.0]
    assert own.tolist() == [6016.0, 6016.0]


@pytest.mark.parametrize("embedded", ["embedded", ["embedded", {"kind": "cfg", "scale": 2.0}]])
def test_a_pass_at_the_pipelines_own_scale_is_planned_beside_one_at_scale_one(embedded):
    tiny = BUILDERS["hunyuan_video"]()
    same = {n: t[:1].repeat(2, *[1] * (t.ndim - 1)) for n, t in tiny.positive.items()}
    settings = [vidcfg.Guidance(4.0, method=m, frames=RAMP) for m in (embedded, "cfg")]
    negative = {n: t[:1] for n, t in tiny.negative.items()}
    with vidcfg.guide(tiny.pipe, settings, **negative) as trace:
        tiny.unguided(**same, generator=generators(3, 3))
    assert [s.evaluations for s in trace.steps] == list(trace.planned.per_step)
    assert trace.steps[0].evaluations["cond"] == 2
