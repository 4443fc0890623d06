"""Prompts through real text encoders with tiny weights: what is particular to a family."""

import functools

import pytest
import torch
from guided_runs import in_bfloat16
from tiny_pipelines import BUILDERS, generators, ltx2
from tiny_text import with_prompts
from tiny_twins import hunyuan_video_i2v, hunyuan_video_i2v_replace

import vidcfg


@pytest.mark.parametrize("forced", [True, False])
def test_empty_negative_prompt_of_sdxl_is_what_its_pipeline_takes_for_none(forced):
    tiny = with_prompts(BUILDERS["sdxl"]())
    tiny.pipe.register_to_config(force_zeros_for_empty_prompt=forced)
    stock = tiny.stock(5.0, generator=generators(0, 1), negative_prompt=None)
    with vidcfg.guide(tiny.pipe, 5.0):
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)
    encoded = tiny.stock(5.0, generator=generators(0, 1), negative_prompt=["", ""])
    assert torch.equal(ours, encoded) != forced


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_clip_skip_is_of_the_prompt_alone_as_in_the_stock_pipeline(name):
    tiny = with_prompts(BUILDERS[name]())
    stock = tiny.stock(7.0, generator=generators(0, 1), clip_skip=1)
    with vidcfg.guide(tiny.pipe, 7.0, **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1), clip_skip=1)
    assert torch.equal(ours, stock)
    assert not torch.equal(ours, tiny.stock(7.0, generator=generators(0, 1)))


@pytest.mark.parametrize("name", ["hunyuan_video", "hunyuan_video15", "sdxl", "sd3", "flux"])
def test_another_negative_prompt_makes_another_result_with_the_same_passes(name):
    tiny = with_prompts(BUILDERS[name]())
    latents = []
    for negative in ("blurry", 'green "static"'):
        with vidcfg.guide(tiny.pipe, 4.0, negative_prompt=negative) as trace:
            latents.append(tiny.unguided(generator=generators(0, 1)))
        assert trace.evaluations == {"cond": 6, "uncond": 6}
    assert not torch.equal(*latents)


@pytest.mark.parametrize("name", ["hunyuan_video", "sdxl", "sd3", "flux"])
def test_several_samples_per_prompt_equal_the_stock_pipeline(name):
    tiny = with_prompts(BUILDERS[name]())
    kind = "videos" if name == "hunyuan_video" else "images"
    extra = {f"num_{kind}_per_prompt": 2}
    stock = tiny.stock(4.0, generator=generators(0, 1, 2, 3), **extra)
    with vidcfg.guide(tiny.pipe, 4.0, negative_prompt="blurry"):
        ours = tiny.unguided(generator=generators(0, 1, 2, 3), **extra)
    assert torch.equal(ours, stock)


@pytest.mark.parametrize(
    ("name", "kind"), [("animatediff", "cross"), ("sdxl", "cross"), ("flux", "joint")]
)
def test_a_lora_of_the_text_encoder_has_the_scale_of_the_call_in_both_texts(
    name, kind, monkeypatch
):
    tiny = with_prompts(BUILDERS[name]())
    told, encode = [], type(tiny.pipe).encode_prompt

    def spy(self, *args, **given):
        told.append(given["lora_scale"])
        return encode(self, *args, **given | {"lora_scale": None})

    monkeypatch.setattr(type(tiny.pipe), "encode_prompt", functools.wraps(encode)(spy))
    with vidcfg.guide(tiny.pipe, 6.0, **tiny.negative):
        tiny.unguided(generator=generators(0, 1), **{f"{kind}_attention_kwargs": {"scale": 0.5}})
    assert told == [0.5, 0.5]


@pytest.mark.parametrize(("scale", "texts"), [(1.0, 1), (4.0, 2)])
def test_texts_that_no_step_needs_are_not_encoded(scale, texts, monkeypatch):
    tiny = with_prompts(BUILDERS["sdxl"]())
    encoded, encode = [], type(tiny.pipe).encode_prompt

    def spy(self, *args, **given):
        encoded.append(given)
        return encode(self, *args, **given)

    monkeypatch.setattr(type(tiny.pipe), "encode_prompt", functools.wraps(encode)(spy))
    with vidcfg.guide(tiny.pipe, scale, **tiny.negative):
        tiny.unguided(generator=generators(0, 1))
    assert len(encoded) == texts


def test_glyphs_in_quotes_reach_the_second_encoder_of_hunyuan_video_15():
    tiny = with_prompts(BUILDERS["hunyuan_video15"](batch=1))
    call = {"generator": generators(0)}
    latents = []
    for text in ('a square over "green left"', "a square over green left"):
        with vidcfg.guide(tiny.pipe, 4.0, negative_prompt='"static" blurry'):
            latents.append(tiny.unguided(prompt=[text], **call))
        call = {"generator": generators(0)}
    assert not torch.equal(*latents)


@pytest.mark.parametrize("audio_scale", [1.0, 5.0])
def test_prompts_of_ltx2_reach_both_streams_as_in_the_stock_pipeline(audio_scale):
    tiny = with_prompts(ltx2())
    shared = tiny.shape | tiny.positive | {"audio_guidance_scale": audio_scale}
    own = tiny.negative | {"guidance_scale": 4.0}
    stock = tiny.pipe(**shared | own, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, 4.0, negative_prompt="blurry"):
        ours = tiny.pipe(**shared, guidance_scale=1.0, generator=generators(0, 1))
    # the pipeline combines x0 as c + (s - 1) (c - u), we combine velocities as u + s (c - u)
    torch.testing.assert_close(ours.frames, stock.frames, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(ours.audio, stock.audio, rtol=2e-5, atol=2e-5)


def test_ltx2_in_bfloat16_stays_within_one_rounding_of_the_stock_pipeline():
    tiny = in_bfloat16(ltx2())
    stock = tiny.stock(4.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, 4.0, **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1))
    assert ours.dtype == stock.dtype
    # Both combine in float32; the pipeline rounds x0, we the velocity: 2^-8 at each of 3 steps,
    # amplified by the scale.
    torch.testing.assert_close(ours.float(), stock.float(), rtol=0, atol=3 * 4 * 2**-8)
    exact = ltx2()
    exact = exact.stock(4.0, generator=generators(0, 1))
    ours_off = (ours.float() - exact).abs().mean()
    stock_off = (stock.float() - exact).abs().mean()
    assert ours_off < 1.5 * stock_off + 1e-6


@pytest.mark.parametrize(
    ("make", "asked", "every"),
    [
        (hunyuan_video_i2v, None, 2),
        (hunyuan_video_i2v_replace, None, 4),
        (hunyuan_video_i2v_replace, 3, 3),
    ],
)
def test_a_condition_sees_as_many_image_tokens_as_the_prompt(monkeypatch, make, asked, every):
    """HunyuanVideo reads an image with the text; the negative side keeps the method's default."""
    tiny, seen = make().tiny, {}
    embeds = [tiny.positive[f"{n}prompt_{e}"] for n, e in (("", "embeds"), ("pooled_", "embeds"))]

    def encode(self, image, prompt, prompt_embeds=None, image_embed_interleave=2, **kwargs):
        seen["prompt" if prompt is None else prompt[0]] = image_embed_interleave
        return *embeds, tiny.positive["prompt_attention_mask"]

    monkeypatch.setattr(type(tiny.pipe), "encode_prompt", encode)
    tiny.pipe.text_encoder = tiny.pipe.vae  # something that is there
    sky = {"name": "sky", "prompt": "a red sky", "scale": 2.0}
    method = {"kind": "multi", "conditions": [sky]}
    with vidcfg.guide(tiny.pipe, {"scale": 3.0, "method": method}, negative_prompt="blurry"):
        tiny.unguided(generator=generators(0, 1), image_embed_interleave=asked)
    assert seen == {"prompt": every, "a red sky": every, "blurry": 2}
