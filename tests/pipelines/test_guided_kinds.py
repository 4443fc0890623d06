"""What is particular to one family: SVD's ramp, LTX-2's audio, images, padding, experts."""

import pytest
import torch
from tiny_pipelines import BUILDERS, generators, ltx2

import vidcfg


def test_ramp_equals_the_linspace_of_stable_video_diffusion():
    tiny = BUILDERS["svd"]()
    own = {"min_guidance_scale": 1.0, "max_guidance_scale": 3.0}
    stock = tiny.pipe(**tiny.shape, **tiny.positive, **own, generator=generators(0, 1)).frames
    guidance = vidcfg.Guidance(scale=3.0, frames={"kind": "ramp", "first": 0.0, "last": 1.0})
    with vidcfg.guide(tiny.pipe, guidance):
        ours = tiny.unguided(generator=generators(0, 1))
    # torch's float32 linspace and 1 + 2 w differ by an ulp on some frames
    torch.testing.assert_close(ours, stock, rtol=2e-5, atol=2e-5)


def test_unconditional_side_of_stable_video_diffusion_is_an_image_of_zeros():
    tiny = BUILDERS["svd"](batch=1)
    seen = []
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0, passes="sequential")):
        forward = tiny.pipe.unet.conv_in.register_forward_pre_hook(
            lambda module, args: seen.append(args[0].unflatten(0, (1, -1)).clone())
        )
        tiny.unguided(generator=generators(0))
    forward.remove()
    for cond, uncond in zip(seen[::2], seen[1::2]):
        assert torch.equal(cond[:, :, :4], uncond[:, :, :4])
        assert cond[:, :, 4:].abs().sum() > 0
        assert uncond[:, :, 4:].abs().sum() == 0


def test_stable_video_diffusion_takes_no_negative_prompt_and_no_rule_with_prompts():
    tiny = BUILDERS["svd"]()
    with (
        pytest.raises(ValueError, match="conditioned on an image.*Leave negative_prompt out"),
        vidcfg.guide(tiny.pipe, 2.0, negative_prompt="blurry"),
    ):
        raise AssertionError("must not be entered")
    method = {"kind": "multi", "conditions": [{"name": "a", "prompt": "a", "scale": 2.0}]}
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0, method=method)),
        pytest.raises(ValueError, match="needs a prompt.*conditioned on an image"),
    ):
        tiny.unguided(generator=generators(0, 1))


def test_video_of_ltx2_equals_the_stock_pipeline():
    tiny = ltx2()
    stock = tiny.stock(4.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=4.0), **tiny.negative) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    # the pipeline combines x0 as c + (s - 1) (c - u), we combine velocities as u + s (c - u)
    torch.testing.assert_close(ours, stock, rtol=2e-5, atol=2e-5)
    assert trace.evaluations == {"cond": 6, "uncond": 6} == trace.planned.evaluations


def test_rescale_of_ltx2_is_that_of_the_stock_pipeline_in_x0():
    tiny = ltx2(num_steps=1)  # one step: the audio, which stock rescales too, has no say yet
    stock = tiny.stock(4.0, guidance_rescale=0.7, generator=generators(0, 1))
    made = {}
    for space in ("pipeline", "prediction"):
        rescale = {"amount": 0.7, "space": space}
        guidance = vidcfg.Guidance(scale=4.0, rescale=rescale, statistics="clip")
        with vidcfg.guide(tiny.pipe, guidance, **tiny.negative):
            made[space] = tiny.unguided(generator=generators(0, 1))
    # stock takes one standard deviation per sample too
    torch.testing.assert_close(made["pipeline"], stock, rtol=2e-5, atol=2e-5)
    assert (made["prediction"] - stock).abs().max() > 1e-3


@pytest.mark.parametrize(("scale", "audio_scale"), [(4.0, 6.0), (1.0, 6.0), (4.0, 1.0)])
def test_audio_of_ltx2_keeps_its_own_scale(scale, audio_scale):
    tiny = ltx2()
    shared = tiny.shape | tiny.positive | {"audio_guidance_scale": audio_scale}
    own = tiny.negative | {"guidance_scale": scale}
    stock = tiny.pipe(**shared | own, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=scale), **tiny.negative) as trace:
        ours = tiny.pipe(**shared, guidance_scale=1.0, generator=generators(0, 1))
    # as above
    torch.testing.assert_close(ours.audio, stock.audio, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(ours.frames, stock.frames, rtol=2e-5, atol=2e-5)
    assert trace.evaluations == {"cond": 6, "uncond": 6} == trace.planned.evaluations


def test_whole_recipe_of_ltx2_is_one_setting():
    tiny = ltx2(perturbs_itself=True)
    # Attention that matters: at their first values the weights add little.
    for name, parameter in tiny.denoiser.named_parameters():
        if name.endswith(("to_v.weight", "to_out.0.weight")):
            parameter.data.mul_(4)
    call = tiny.shape | tiny.positive | {"audio_guidance_scale": 6.0}
    own = {"stg_scale": 1.0, "modality_scale": 3.0, "guidance_rescale": 0.7}
    own |= {f"audio_{name}": value for name, value in own.items()}
    own |= {"guidance_scale": 4.0, "spatio_temporal_guidance_blocks": [0]}
    stock = tiny.pipe(**call | own | tiny.negative, generator=generators(0, 1))
    recipe = vidcfg.Guidance(
        scale=4.0,
        rescale=0.7,
        statistics="clip",
        method=[
            "cfg",
            {"kind": "stg", "scale": 2.0, "layers": [0]},
            {"kind": "modality", "scale": 3.0},
        ],
    )
    with vidcfg.guide(tiny.pipe, recipe, **tiny.negative) as trace:
        ours = tiny.pipe(**call, guidance_scale=1.0, generator=generators(0, 1))
    torch.testing.assert_close(ours.frames, stock.frames, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.audio, stock.audio, rtol=1e-4, atol=1e-4)
    assert trace.evaluations == trace.planned.evaluations
    for left_out in ("stg_scale", "audio_stg_scale", "modality_scale", "audio_modality_scale"):
        off = own | {left_out: tiny.shape[left_out]}
        if left_out.startswith("audio"):  # 0 and 1 follow the video's
            off[left_out] = 1e-9 if "stg" in left_out else 1.0
        part = tiny.pipe(**call | off | tiny.negative, generator=generators(0, 1))
        far = (part.frames - stock.frames).abs().max() + (part.audio - stock.audio).abs().max()
        assert far > 1e-3, left_out


def test_sound_of_ltx2_follows_its_texts_under_a_rule_without_an_unconditional_pass():
    tiny = ltx2(perturbs_itself=True)
    call = tiny.shape | tiny.positive | {"audio_guidance_scale": 6.0}
    own = {"stg_scale": 1.0, "audio_stg_scale": 1.0, "spatio_temporal_guidance_blocks": [0]}
    own |= {"guidance_scale": 1.0} | tiny.negative
    stock = tiny.pipe(**call | own, generator=generators(0, 1))
    guidance = vidcfg.Guidance(scale=2.0, method={"kind": "stg", "layers": [0]})
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        ours = tiny.pipe(**call, guidance_scale=1.0, generator=generators(0, 1))
    torch.testing.assert_close(ours.frames, stock.frames, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.audio, stock.audio, rtol=1e-4, atol=1e-4)
    assert trace.evaluations == trace.planned.evaluations
    assert trace.evaluations["uncond"] == 6


def test_sound_of_ltx2_without_guidance_is_there_where_the_video_needs_no_prompt():
    tiny = ltx2()
    call = tiny.shape | tiny.positive | {"guidance_scale": 1.0}
    made = []
    for setting in (1.0, 0.0):
        with vidcfg.guide(tiny.pipe, setting, **tiny.negative):
            one = call | {"num_inference_steps": 1}
            made.append(tiny.pipe(**one, generator=generators(0, 1)))
    # in calls of two and of four rows
    torch.testing.assert_close(made[0].audio, made[1].audio, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(made[0].frames, made[1].frames, atol=1e-3)
    guidance = vidcfg.Guidance(scale=3.0, method="zero_star")
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        tiny.pipe(**call, generator=generators(0, 1))
    assert trace.steps[0].evaluations == {"cond": 2}
    assert trace.evaluations == trace.planned.evaluations


def test_modality_guidance_without_sound_is_an_error_that_says_so():
    tiny = BUILDERS["wan"]()
    guidance = vidcfg.Guidance(scale=2.0, method=["cfg", "modality"])
    with (
        vidcfg.guide(tiny.pipe, guidance, **tiny.negative),
        pytest.raises(ValueError, match="make video and sound, which wan does not"),
    ):
        tiny.unguided(generator=generators(0, 1))


def test_frames_of_ltx2_differ_and_its_audio_does_not_follow_the_frame_weights():
    tiny = ltx2()
    call = tiny.shape | tiny.positive | {"audio_guidance_scale": 3.0, "guidance_scale": 1.0}
    calls = []
    settings = (
        vidcfg.Guidance(scale=4.0, frames={"kind": "knots", "points": [[0, 0], [0.5, 1], [1, 1]]}),
        vidcfg.Guidance(scale=4.0),
    )
    call["num_inference_steps"] = 1  # one step: video does not reach audio through attention
    for setting in settings:
        with vidcfg.guide(tiny.pipe, setting, **tiny.negative):
            calls.append(tiny.pipe(**call, generator=generators(0, 1)))
    assert torch.equal(calls[0].audio, calls[1].audio)
    assert not torch.equal(calls[0].frames[:, :, 0], calls[1].frames[:, :, 0])
    torch.testing.assert_close(calls[0].frames[:, :, -1], calls[1].frames[:, :, -1])


def test_guidance_of_ltx2_that_is_on_by_default_is_switched_off_with_one_notice():
    tiny = ltx2(num_steps=1)
    call = {n: v for n, v in tiny.shape.items() if "stg" not in n and "modality" not in n}
    with (
        vidcfg.guide(tiny.pipe, 2.0, **tiny.negative),
        pytest.warns(UserWarning, match="stg_scale=1.0, modality_scale=3.0, audio_stg_scale=1.0"),
    ):
        tiny.pipe(**call, **tiny.positive, guidance_scale=1.0, generator=generators(0, 1))


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_settings_along_frames_are_left_out_with_a_warning_on_images(name):
    tiny = BUILDERS[name]()
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=7.0), **tiny.negative):
        uniform = tiny.unguided(generator=generators(0, 1))
    guidance = vidcfg.Guidance(
        scale=7.0,
        frames={"kind": "ramp", "first": 0.0, "last": 1.0},
        windows=[{"frames": [0, 0], "from": 0.0, "to": 0.5}],
    )
    with (
        pytest.warns(UserWarning, match="one frame, so guidance.frames: ramp and guidance.win"),
        vidcfg.guide(tiny.pipe, guidance, **tiny.negative),
    ):
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, uniform)


def test_frames_of_one_rule_of_a_list_are_left_out_on_an_image():
    tiny = BUILDERS["sd15"]()
    rules = [{"kind": "cfg"}, {"kind": "renorm", "scale": 3.0}]
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=7.0, method=rules), **tiny.negative):
        uniform = tiny.unguided(generator=generators(0, 1))
    rules[1]["frames"] = {"kind": "ramp", "first": 0.0, "last": 1.0}
    with (
        pytest.warns(UserWarning, match=r"guidance\.frames: ramp cannot matter"),
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=7.0, method=rules), **tiny.negative),
    ):
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, uniform)


def test_step_schedule_rescale_and_threshold_work_on_an_image():
    tiny = BUILDERS["sdxl"]()
    guidance = vidcfg.Guidance(
        scale={"kind": "interval", "value": 8.0, "from": 0.4, "to": 1.0},
        rescale=0.7,
        threshold={"percentile": 99.0, "floor": 1.0},
    )
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        latents = tiny.unguided(generator=generators(0, 1))
    assert torch.isfinite(latents).all()
    assert [s.evaluations.get("uncond", 0) for s in trace.steps] == [0, 2, 2]


def test_threshold_reads_the_noisy_channels_only():
    tiny = BUILDERS["wan_i2v"]()
    guidance = vidcfg.Guidance(scale=5.0, threshold={"percentile": 99.0, "floor": 0.5})
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative):
        assert torch.isfinite(tiny.unguided(generator=generators(0, 1))).all()


def test_embedded_scale_stays_the_callers_beside_true_guidance():
    tiny = BUILDERS["hunyuan_video"]()
    latents = []
    for embedded in (1.0, 9.0):
        stock = tiny.stock(3.0, guidance_scale=embedded, generator=generators(0, 1))
        with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative):
            ours = tiny.unguided(guidance_scale=embedded, generator=generators(0, 1))
        assert torch.equal(ours, stock)
        latents.append(ours)
    assert not torch.equal(*latents)


@pytest.mark.parametrize(
    ("name", "num_frames", "latents", "padding"),
    [("cogvideox", 9, 3, 0), ("cogvideox", 8, 2, 0), ("cogvideox15", 9, 4, 1)],
)
def test_cogvideox_maps_odd_even_and_padded_latents(name, num_frames, latents, padding):
    tiny = BUILDERS[name](num_frames=num_frames)
    frames = {"kind": "keyframes", "at": ["first"], "floor": 0.0, "reach": 1}
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=6.0, frames=frames), **tiny.negative) as t:
        tiny.unguided(generator=generators(0, 1))
    strength_F = t.surfaces[0].strength_KF[0]
    assert len(strength_F) == latents
    assert strength_F[padding] == 6.0
    assert (strength_F[padding + 1 :] == 1.0).all()


def test_animatediff_that_mixes_prompts_over_frames_is_refused_by_name():
    tiny = BUILDERS["animatediff"]()
    tiny.pipe.enable_free_noise(context_length=4, context_stride=2)
    with (
        vidcfg.guide(tiny.pipe, 6.0, **tiny.negative),
        pytest.raises(ValueError, match="FreeNoise.*disable_free_noise"),
    ):
        tiny.unguided(generator=generators(0, 1))
    tiny.pipe.disable_free_noise()
    stock = tiny.stock(6.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, 6.0, **tiny.negative):
        assert torch.equal(tiny.unguided(generator=generators(0, 1)), stock)


def test_guider_of_a_pipeline_is_off_inside_and_as_before_outside():
    tiny = BUILDERS["hunyuan_video15"]()
    before = tiny.stock(3.0, generator=generators(0, 1))
    guider = tiny.pipe.guider
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative):
        call = tiny.shape | tiny.positive
        ours = tiny.pipe(**call, generator=generators(0, 1)).frames
    assert torch.equal(ours, before)
    assert tiny.pipe.guider is guider
    assert guider._enabled


def test_derived_family_is_declared_in_under_thirty_lines():
    import inspect

    from vidcfg.pipelines.families import anyflow

    assert len(inspect.getsource(anyflow).splitlines()) < 30


def test_a_scale_outside_the_usual_range_is_a_note_and_no_error(caplog):
    tiny = BUILDERS["ltx"](num_steps=1)
    with vidcfg.guide(tiny.pipe, 30.0, **tiny.negative):
        for _ in range(2):
            tiny.unguided(generator=generators(0, 1))
    assert [r.getMessage() for r in caplog.records if r.name == "vidcfg"] == [
        "note: scale 30 is outside of what people use with ltx (2 to 5, default 3)."
    ]


@pytest.mark.parametrize(
    ("scale", "last", "told"),
    [(1.0, 1.0, []), (2.0, 1.0, []), (4.0, 1.5, ["note: scale 5.5 is outside"])],
)
def test_the_note_is_about_the_scale_and_not_about_the_mean_of_a_latent(scale, last, told, caplog):
    # The last latent of the ramp has a mean weight below its last frame's.
    tiny = BUILDERS["ltx"](num_steps=1)
    count = tiny.shape["num_frames"]
    frames = [last * frame / (count - 1) for frame in range(count)]
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale, frames=frames), **tiny.negative):
        tiny.unguided(generator=generators(0, 1))
    found = [r.getMessage() for r in caplog.records if r.name == "vidcfg"]
    assert [note[: len("note: scale 5.5 is outside")] for note in found] == told


@pytest.mark.parametrize(("at", "is_told"), [([0, 3, 8], True), ([0, 8], False)])
def test_keyframes_that_no_latent_frame_is_without_are_told_to_have_no_effect(at, is_told, caplog):
    # nine frames: latents of one, four and four
    tiny = BUILDERS["wan"](num_steps=1)
    assert tiny.shape["num_frames"] == 9
    frames = {"kind": "keyframes", "at": at, "floor": 0.0, "reach": 2}
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(4.0, frames=frames), **tiny.negative) as trace:
        tiny.unguided(generator=generators(0, 1))
    assert (trace.surfaces[0].strength_KF == 4.0).all() == is_told
    found = [r.getMessage() for r in caplog.records if r.name == "vidcfg"]
    assert [note.startswith("note: guidance.frames has no effect") for note in found] == (
        [True] if is_told else []
    )
