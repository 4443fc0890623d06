"""What `vidcfg.guide` promises around a run: sharing, refusals, clean-up, schedulers."""

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from tiny_pipelines import BUILDERS, generators
from tiny_text import with_prompts

import vidcfg
from vidcfg.guidance.step import NonFiniteError
from vidcfg.pipelines.texts import negative_texts


def repeated(tensors: dict, times: int) -> dict:
    return {
        name: tensor[:1].repeat(times, *[1] * (tensor.ndim - 1))
        for name, tensor in tensors.items()
    }


def test_eight_scales_of_one_prompt_and_seed_share_the_first_evaluation():
    tiny = BUILDERS["wan"]()
    settings = [vidcfg.Guidance(scale=float(s), micro_batch=1) for s in range(2, 10)]
    with vidcfg.guide(tiny.pipe, settings, **repeated(tiny.negative, 8)) as trace:
        together = tiny.unguided(**repeated(tiny.positive, 8), generator=generators(*[3] * 8))
    assert trace.steps[0].evaluations == {"cond": 1, "uncond": 1}
    assert trace.evaluations == {"cond": 17, "uncond": 17} == trace.planned.evaluations
    for b, setting in enumerate(settings):
        with vidcfg.guide(tiny.pipe, setting, **repeated(tiny.negative, 1)):
            alone = tiny.unguided(**repeated(tiny.positive, 1), generator=generators(3))
        assert torch.equal(together[b : b + 1], alone)


def test_sharing_off_gives_the_same_latents_with_every_evaluation_run():
    tiny = BUILDERS["wan"]()
    scales = (2.0, 5.0, 5.0)
    latents, counts = [], []
    for share in (True, False):
        settings = [vidcfg.Guidance(scale=s, micro_batch=1, share=share) for s in scales]
        with vidcfg.guide(tiny.pipe, settings, **repeated(tiny.negative, 3)) as trace:
            latents.append(
                tiny.unguided(**repeated(tiny.positive, 3), generator=generators(3, 3, 3))
            )
        counts.append(trace.total)
        assert trace.evaluations == trace.planned.evaluations
    assert torch.equal(*latents)
    assert counts == [2 * (1 + 2 + 2), 2 * 9]


def test_scale_below_one_still_runs_the_unconditional_branch():
    tiny = BUILDERS["wan"]()
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=0.5), **tiny.negative) as trace:
        tiny.unguided(generator=generators(0, 1))
    assert trace.evaluations == {"cond": 6, "uncond": 6}


def test_scale_zero_runs_the_unconditional_branch_alone():
    tiny = BUILDERS["wan"]()
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=0.0), **tiny.negative) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    swapped = {"prompt_embeds": tiny.negative["negative_prompt_embeds"]}
    assert trace.evaluations == {"uncond": 6}
    assert torch.equal(ours, tiny.unguided(**swapped, generator=generators(0, 1)))


def test_interval_leaves_the_unconditional_branch_out_outside():
    tiny = BUILDERS["ltx"](num_steps=5)
    scale = {"kind": "interval", "value": 4.0, "from": 0.25, "to": 0.5}
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=scale), **tiny.negative) as trace:
        tiny.unguided(generator=generators(0, 1))
    assert [s.evaluations.get("uncond", 0) for s in trace.steps] == [0, 2, 2, 0, 0]
    assert trace.evaluations == trace.planned.evaluations


def test_batch_neighbours_do_not_matter_beyond_float_rounding():
    tiny = BUILDERS["mochi"](batch=3)
    guidance = vidcfg.Guidance(scale=4.0, rescale=0.7)
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative):
        together = tiny.unguided(generator=generators(0, 1, 2))
    one = {name: tensor[1:2] for name, tensor in tiny.positive.items()}
    negative = {name: tensor[1:2] for name, tensor in tiny.negative.items()}
    with vidcfg.guide(tiny.pipe, guidance, **negative):
        alone = tiny.unguided(**one, generator=generators(1))
    # matrix products of other batch shapes round differently: a few float32 ulps over three steps
    torch.testing.assert_close(together[1:2], alone, rtol=2e-5, atol=2e-5)


def test_batch_position_does_not_matter_with_one_row_per_call():
    tiny = BUILDERS["cogvideox"](batch=3)
    guidance = vidcfg.Guidance(scale=4.0, micro_batch=1)
    order = torch.tensor([2, 0, 1])
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative):
        first = tiny.unguided(generator=generators(0, 1, 2))
    moved = {name: tensor[order] for name, tensor in tiny.positive.items()}
    negative = {name: tensor[order] for name, tensor in tiny.negative.items()}
    with vidcfg.guide(tiny.pipe, guidance, **negative):
        second = tiny.unguided(**moved, generator=generators(2, 0, 1))
    assert torch.equal(first[order], second)


@pytest.mark.parametrize("passes", ["sequential", "batched", "auto"])
@pytest.mark.parametrize("name", ["wan", "ltx"])
def test_pass_mode_changes_nothing_but_float_rounding(name, passes):
    tiny = BUILDERS[name](num_steps=7)
    stock = tiny.stock(3.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, passes=passes), **tiny.negative) as t:
        ours = tiny.unguided(generator=generators(0, 1))
    torch.testing.assert_close(ours, stock, rtol=2e-5, atol=2e-5)
    assert t.evaluations == {"cond": 14, "uncond": 14}
    calls = [step.calls for step in t.steps]
    assert calls == {"sequential": [2] * 7, "batched": [1] * 7}.get(passes, calls)


def test_ramp_from_zero_is_svd_linspace_over_latent_frames():
    tiny = BUILDERS["wan"](num_frames=9)
    guidance = vidcfg.Guidance(scale=3.0, frames={"kind": "ramp", "first": 0.0, "last": 1.0})
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        tiny.unguided(generator=generators(0, 1))
    pixels = trace.surfaces[0].strength_KT[0]
    # one ulp: 1 + (3 - 1) w rounds once more than linspace
    np.testing.assert_allclose(pixels, np.linspace(1.0, 3.0, 9), rtol=3e-16)


def test_heun_decides_once_per_step_for_both_evaluations():
    tiny = BUILDERS["wan"](num_steps=4)
    tiny.pipe.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    scales = [1.0, 6.0, 2.0, 1.0]
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=scales), **tiny.negative) as trace:
        tiny.unguided(generator=generators(0, 1))
    assert [s.step for s in trace.steps] == [0, 0, 1, 1, 2, 2, 3]
    assert [s.evaluations.get("uncond", 0) for s in trace.steps] == [0, 0, 2, 2, 2, 2, 0]
    assert trace.evaluations == trace.planned.evaluations


@pytest.mark.parametrize("kind", ["unipc", "dpm++"])
def test_multistep_schedulers_equal_the_stock_pipeline_bit_for_bit(kind):
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    cls = {"unipc": UniPCMultistepScheduler, "dpm++": DPMSolverMultistepScheduler}[kind]
    tiny = BUILDERS["wan"](num_steps=5)
    tiny.pipe.scheduler = cls(**flow)
    stock = tiny.stock(4.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=4.0), **tiny.negative) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)
    assert [s.step for s in trace.steps] == list(range(5))


def test_second_guide_on_a_pipeline_is_refused():
    tiny = BUILDERS["wan"]()
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0), **tiny.negative),
        pytest.raises(ValueError, match="already inside a vidcfg.guide block"),
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0), **tiny.negative),
    ):
        raise AssertionError("the second block must not be entered")


def test_pipeline_is_as_before_after_an_exception_and_nothing_is_kept_alive():
    tiny = BUILDERS["wan"]()
    before = tiny.stock(3.0, generator=generators(0, 1))
    cls = type(tiny.pipe)

    def stop(pipe, step, timestep, inputs):
        raise RuntimeError("stop here")

    with (
        pytest.raises(RuntimeError, match="stop here"),
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0), **tiny.negative) as trace,
    ):
        tiny.unguided(generator=generators(0, 1), callback_on_step_end=stop)
    assert type(tiny.pipe) is cls
    assert "forward" not in vars(tiny.pipe.transformer)
    assert torch.equal(tiny.stock(3.0, generator=generators(0, 1)), before)
    watch = weakref.ref(tiny.pipe.transformer)
    del tiny
    gc.collect()
    assert watch() is None
    assert len(trace.steps) == 1


def test_a_denoiser_at_work_in_a_guided_call_serves_no_other_thread():
    tiny, other = BUILDERS["wan"](), BUILDERS["wan"]()
    other.pipe.transformer = tiny.pipe.transformer
    stock, others = (
        tiny.stock(3.0, generator=generators(0, 1)),
        other.unguided(generator=generators(2, 3)),
    )
    told = []

    def call_other(pipe, step, timestep, inputs):
        def plain():
            other.unguided(generator=generators(2, 3))

        def guided():
            with vidcfg.guide(other.pipe, 2.0, **other.negative):
                plain()

        with ThreadPoolExecutor(1) as beside:
            told.extend(str(beside.submit(run).exception()) for run in (plain, guided))
        return inputs

    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1), callback_on_step_end=call_other)
    assert len(told) == 2 * 3
    assert all("WanTransformer3DModel is at work in another guided call" in one for one in told)
    # Neither is wrong for it, then or later.
    assert torch.equal(ours, stock)
    assert "forward" not in vars(tiny.pipe.transformer)
    assert torch.equal(other.unguided(generator=generators(2, 3)), others)


def test_own_guidance_left_on_is_refused_with_the_argument_to_change():
    tiny = BUILDERS["wan"]()
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0), **tiny.negative),
        pytest.raises(ValueError, match=r"guidance_scale=5.5.*Pass guidance_scale=1.0"),
    ):
        tiny.pipe(**tiny.shape, **tiny.positive, guidance_scale=5.5)


def test_own_guidance_on_by_default_is_switched_off_with_a_notice():
    tiny = BUILDERS["mochi"]()
    plain = tiny.unguided(generator=generators(0, 1))
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=1.0), **tiny.negative),
        pytest.warns(UserWarning, match=r"own guidance_scale=4.5 is switched off"),
    ):
        ours = tiny.pipe(**tiny.shape, **tiny.positive, generator=generators(0, 1)).frames
    assert torch.equal(ours, plain)


def test_a_call_that_hands_its_arguments_on_is_checked_and_guided_as_the_one_below_it():
    tiny = with_prompts(BUILDERS["wan"]())
    stock, base = tiny.stock(4.0, generator=generators(0, 1)), type(tiny.pipe)

    class Timed(base):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    class Named(Timed):
        def __call__(self, prompt, name="clip", **rest):
            return super().__call__(prompt, **rest)

    for cls, extra in ((Timed, {}), (Named, {"name": "kite"})):
        tiny.pipe.__class__ = cls
        with vidcfg.guide(tiny.pipe, 4.0, **tiny.negative):
            call = tiny.shape | tiny.positive | extra
            ours = tiny.pipe(call.pop("prompt"), **call, generator=generators(0, 1))[0]
            assert torch.equal(ours, stock)
            with pytest.raises(ValueError, match="guidance_scale=5.0, so guidance .* twice"):
                tiny.pipe("a", guidance_scale=5.0)
            with pytest.raises(ValueError, match="this call has negative_prompt"):
                tiny.pipe("a", negative_prompt="b", guidance_scale=1.0)


def test_a_denoiser_whose_forward_is_wrapped_is_guided_as_the_plain_one(monkeypatch):
    """As caches do that replace the method of the class."""
    tiny = BUILDERS["wan"]()
    stock, forward = tiny.stock(4.0, generator=generators(0, 1)), type(tiny.denoiser).forward
    monkeypatch.setattr(
        type(tiny.denoiser), "forward", lambda self, **given: forward(self, **given)
    )
    with vidcfg.guide(tiny.pipe, 4.0, **tiny.negative):
        assert torch.equal(tiny.unguided(generator=generators(0, 1)), stock)


def test_negative_inputs_of_the_call_are_refused_with_where_they_go():
    tiny = BUILDERS["ltx"]()
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0), **tiny.negative),
        pytest.raises(ValueError, match=r"negative_prompt_embeds.*vidcfg.guide"),
    ):
        tiny.unguided(**tiny.negative)


def test_incomplete_or_foreign_negative_inputs_are_named():
    tiny = BUILDERS["ltx"]()
    embeds = tiny.negative["negative_prompt_embeds"]
    with (
        pytest.raises(ValueError, match="negative_prompt_attention_mask is missing"),
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0), negative_prompt_embeds=embeds),
    ):
        raise AssertionError("must not be entered")
    with (
        pytest.raises(
            ValueError, match="guide\\(\\) got negative_image.*takes negative_prompt_embeds"
        ),
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0), negative_image=embeds),
    ):
        raise AssertionError("must not be entered")


def test_negative_text_without_a_text_encoder_says_what_to_pass():
    tiny = BUILDERS["wan"]()
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0), negative_prompt="blurry"),
        pytest.raises(ValueError, match="Pass negative_prompt_embeds to vidcfg.guide"),
    ):
        tiny.unguided(generator=generators(0, 1))


def test_none_is_an_empty_negative_prompt_and_what_is_no_text_is_refused():
    tiny = with_prompts(BUILDERS["wan"]())
    latents = []
    for negative in (["blurry", None], ("blurry", "")):
        with vidcfg.guide(tiny.pipe, 4.0, negative_prompt=negative):
            latents.append(tiny.unguided(generator=generators(0, 1)))
    assert torch.equal(*latents)
    for negative, told in ((3, "3"), (["a", ["b"]], "'b'")):
        with pytest.raises(ValueError, match=f"negative_prompt .*{told}.* a text for each prompt"):
            negative_texts(negative)


def test_a_copy_made_inside_the_block_is_refused():
    tiny = BUILDERS["wan"]()
    with vidcfg.guide(tiny.pipe, 4.0, **tiny.negative):
        other = replace(tiny, pipe=copy.deepcopy(tiny.pipe))
        with pytest.raises(ValueError, match="is a copy .* Copy it before"):
            other.unguided(generator=generators(0, 1))
    with pytest.raises(ValueError, match="is a copy .* Copy it before"):
        other.unguided(generator=generators(0, 1))


def test_unknown_pipeline_is_an_error_that_names_the_supported_ones():
    class OtherPipeline:
        """No family knows this class."""

    with (
        pytest.raises(
            ValueError, match="cannot guide a OtherPipeline.*WanPipeline.*register_family"
        ),
        vidcfg.guide(OtherPipeline(), vidcfg.Guidance(scale=2.0)),
    ):
        raise AssertionError("must not be entered")


def test_nan_in_a_prediction_names_step_branch_sample_and_frame():
    tiny = BUILDERS["wan"]()
    tiny.negative["negative_prompt_embeds"][1] = float("nan")
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0), **tiny.negative),
        pytest.raises(
            NonFiniteError, match="step 0: the uncond prediction of sample 1 .* frame 0"
        ),
    ):
        tiny.unguided(generator=generators(0, 1))


def test_nan_that_no_step_waits_for_is_told_when_the_run_ends(monkeypatch):
    monkeypatch.setattr("vidcfg.guidance.step.HOST", ())  # as on a GPU
    tiny = BUILDERS["wan"]()
    tiny.negative["negative_prompt_embeds"][1] = float("nan")
    told = pytest.raises(NonFiniteError, match="step 0: a prediction of sample 1 .* frame 0")
    with vidcfg.guide(tiny.pipe, 2.0, **tiny.negative) as trace, told:
        tiny.unguided(generator=generators(0, 1))
    assert len(trace.steps) == tiny.shape["num_inference_steps"]


def test_a_number_in_the_list_of_settings_is_a_scale():
    tiny = BUILDERS["hunyuan_video"]()
    stock = tiny.stock(3.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, [3.0, 3.0], **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)


def test_trace_tells_strength_and_spread_per_frame():
    tiny = BUILDERS["wan"]()
    guidance = vidcfg.Guidance(scale=6.0, frames={"kind": "decay", "end": 0.0}, rescale=1.0)
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        tiny.unguided(generator=generators(0, 1))
    step = trace.steps[1]
    assert trace.order == ("method:cfg", "rescale")
    assert step.strength_BF.shape == (2, 3)
    assert step.strength_BF[0, -1] < step.strength_BF[0, 0] == 6.0
    # full rescale returns every frame to the spread of cond; float32 statistics
    torch.testing.assert_close(step.std_guided_BF, step.std_cond_BF, rtol=1e-5, atol=0)
    assert set(trace.to_dict()) == {"order", "evaluations", "planned", "naive", "steps"}
