"""Image prompts: equal to the stock pipeline, whose unconditional side has none (IP-Adapter)."""

import pytest
import torch
from PIL import Image
from tiny_adapters import as_stock, with_image_prompts
from tiny_base import image_processor, random, seeded, vision_encoder
from tiny_pipelines import BUILDERS, generators
from tiny_text import with_prompts
from tiny_wan import wan_first_last

import vidcfg


def guided(tiny, embeds, *, seeds=(0, 1), settings=None, **extra):
    settings = settings or vidcfg.Guidance(scale=7.5)
    with vidcfg.guide(tiny.pipe, settings, **tiny.negative):
        return tiny.unguided(generator=generators(*seeds), ip_adapter_image_embeds=embeds, **extra)


@pytest.mark.parametrize("name", ["sd15", "sdxl", "animatediff", "flux"])
def test_several_adapters_equal_the_stock_pipeline_however_the_passes_run(name):
    tiny = BUILDERS[name]()
    without = tiny.stock(7.5, generator=generators(0, 1))
    embeds = with_image_prompts(tiny, 2)
    call = {"generator": generators(0, 1), "ip_adapter_image_embeds": as_stock(tiny, embeds)}
    stock = tiny.stock(7.5, **call)
    assert not torch.allclose(stock, without, atol=0.1)
    for passes in ("pipeline", "batched", "sequential"):
        ours = guided(tiny, embeds, settings=vidcfg.Guidance(scale=7.5, passes=passes))
        if passes == "pipeline":
            assert torch.equal(ours, stock)
        # matrix products of another batch size round differently; latents are in the tens
        torch.testing.assert_close(ours, stock, rtol=0, atol=1e-4)


@pytest.mark.parametrize("share", [True, False])
def test_samples_see_their_own_images_and_share_the_side_that_has_none(share):
    tiny = BUILDERS["sd15"]()
    for inputs in (tiny.positive, tiny.negative):
        inputs |= {name: tensor[:1].repeat(2, 1, 1) for name, tensor in inputs.items()}
    with_image_prompts(tiny)
    embeds = random(2, 1, 16, seed=5)

    def of_each_sample(image, embeds, device, count, has_unconditional):
        none = torch.zeros_like(embeds[0])
        return [torch.cat([none, embeds[0]]) if has_unconditional else embeds[0]]

    # The pipeline itself repeats every image for every sample.
    tiny.pipe.prepare_ip_adapter_image_embeds = of_each_sample
    stock = tiny.stock(7.5, generator=generators(3, 3), ip_adapter_image_embeds=[embeds])
    settings = [vidcfg.Guidance(scale=7.5, share=share, passes="batched")] * 2
    with vidcfg.guide(tiny.pipe, settings, **tiny.negative) as trace:
        ours = tiny.unguided(generator=generators(3, 3), ip_adapter_image_embeds=[embeds])
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-4)
    assert not torch.allclose(ours[0], ours[1], atol=0.1)
    assert trace.steps[0].evaluations == {"cond": 2, "uncond": 1 if share else 2}
    assert trace.evaluations == trace.planned.evaluations


def test_an_unconditional_half_is_taken_as_in_the_stock_call_where_it_is_one():
    one, two = BUILDERS["sd15"](batch=1), BUILDERS["sd15"]()
    (embeds,), _ = with_image_prompts(one), with_image_prompts(two)
    halves = [torch.cat([random(1, 1, 16, seed=8), embeds])]
    stock = one.stock(7.5, generator=generators(0), ip_adapter_image_embeds=halves)
    assert torch.equal(guided(one, halves, seeds=(0,)), stock)
    assert not torch.allclose(guided(one, [embeds], seeds=(0,)), stock, atol=0.1)
    assert torch.equal(guided(two, as_stock(two, [embeds])), guided(two, [embeds]))
    with pytest.raises(ValueError, match="two rows for two samples.*or an image for each"):
        guided(two, halves)


@pytest.mark.parametrize("kind", ["Plus", "FaceIDPlus"])
def test_an_adapter_of_hidden_states_gets_an_empty_image_or_is_refused(kind):
    from diffusers.models import embeddings

    tiny = BUILDERS["sd15"]()
    with_image_prompts(tiny)
    sizes = {"embed_dims": 16, "output_dims": 32, "hidden_dims": 16}
    sizes |= {"heads": 2, "dim_head": 8, "depth": 1, "num_queries": 4} if kind == "Plus" else {}
    make = getattr(embeddings, f"IPAdapter{kind}ImageProjection")
    if kind == "FaceIDPlus":
        sizes |= {"heads": 2, "id_embeddings_dim": 16, "depth": 1, "num_tokens": 4}
    tiny.pipe.unet.encoder_hid_proj.image_projection_layers[0] = seeded(lambda: make(**sizes))
    tiny.pipe.register_modules(
        image_encoder=vision_encoder(16, projected=True), feature_extractor=image_processor()
    )
    match = "FaceID Plus keeps" if kind == "FaceIDPlus" else "is no zeros, so ip_adapter_image_em"
    with pytest.raises(ValueError, match=match):
        guided(tiny, [random(1, 1, 5, 16, seed=3)])
    if kind == "Plus":
        call = {"ip_adapter_image": Image.new("RGB", (16, 16), "orange")}
        stock = tiny.stock(7.5, generator=generators(0, 1), **call)
        assert torch.equal(guided(tiny, None, **call), stock)


def test_rows_that_diffusers_would_mix_over_the_samples_are_refused():
    tiny = BUILDERS["sd15"]()
    (embeds,) = with_image_prompts(tiny)
    with pytest.raises(ValueError, match="image_embeds.0 .* 6 rows for 2 samples.*make a "):
        guided(tiny, [embeds.repeat(3, 1, 1)])


def test_a_negative_image_of_flux_is_read_from_the_call_as_in_the_stock_pipeline():
    tiny = BUILDERS["flux"](batch=1)
    call = {"ip_adapter_image_embeds": with_image_prompts(tiny)}
    black = tiny.stock(7.5, generator=generators(0), **call)
    call["negative_ip_adapter_image_embeds"] = [random(1, 1, 16, seed=9)]
    stock = tiny.stock(7.5, generator=generators(0), **call)
    assert not torch.allclose(stock, black, atol=0.1)
    embeds = call.pop("ip_adapter_image_embeds")
    assert torch.equal(guided(tiny, embeds, seeds=(0,), **call), stock)


def test_masks_of_image_prompts_equal_the_stock_pipeline():
    tiny = BUILDERS["sd15"]()
    embeds = [random(1, 2, 16, seed=5)]  # two images, one for each half
    with_image_prompts(tiny)
    left = torch.zeros(1, 2, 16, 32)
    left[:, 0, :, :16] = left[:, 1, :, 16:] = 1
    call = {"cross_attention_kwargs": {"ip_adapter_masks": [left]}}
    plain, masked = (
        tiny.stock(
            7.5, generator=generators(0, 1), ip_adapter_image_embeds=as_stock(tiny, embeds), **each
        )
        for each in ({}, call)
    )
    assert not torch.allclose(masked, plain, atol=0.1)
    assert torch.equal(guided(tiny, embeds, **call), masked)


def test_only_cond_and_what_is_made_of_it_see_the_image():
    tiny = with_prompts(BUILDERS["sd15"]())
    embeds = with_image_prompts(tiny)
    conditions = [{"name": "sky", "prompt": "blue", "scale": 2.0}]
    method = [{"kind": "multi", "conditions": conditions}, {"kind": "pag", "scale": 3.0}]
    settings = vidcfg.Guidance(scale=7.5, method=method, passes="sequential")
    seen = []
    with vidcfg.guide(tiny.pipe, settings, **tiny.negative) as trace:
        handle = tiny.pipe.unet.encoder_hid_proj.register_forward_pre_hook(
            lambda module, args: seen.append(bool(args[0][0].any()))
        )
        tiny.unguided(generator=generators(0, 1), ip_adapter_image_embeds=embeds)
        handle.remove()
    branches = list(trace.steps[0].evaluations)
    assert dict(zip(branches, seen)) == {
        "cond": True,
        "uncond": False,
        "condition:sky": False,
        "perturbed:pag": True,
    }


def test_first_and_last_frame_of_wan_go_together_with_their_sample():
    tiny = wan_first_last()
    stock = tiny.stock(4.3, generator=generators(0, 1))
    swapped = {"image": tiny.shape["last_image"], "last_image": tiny.shape["image"]}
    assert not torch.allclose(tiny.stock(4.3, generator=generators(0, 1), **swapped), stock)
    with vidcfg.guide(tiny.pipe, 4.3, **tiny.negative):
        assert torch.equal(tiny.unguided(generator=generators(0, 1)), stock)
    # A call for every sample and branch.
    settings = [vidcfg.Guidance(scale=s, micro_batch=1) for s in (4.3, [2.0, 1.0, 6.0])]
    with vidcfg.guide(tiny.pipe, settings, **tiny.negative) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert trace.evaluations == {"cond": 6, "uncond": 5} == trace.planned.evaluations
    torch.testing.assert_close(ours[:1], stock[:1], rtol=0, atol=1e-5)
    with vidcfg.guide(tiny.pipe, settings[1], **{n: t[1:] for n, t in tiny.negative.items()}):
        alone = tiny.unguided(
            generator=generators(1), **{n: t[1:] for n, t in tiny.positive.items()}
        )
    assert torch.equal(ours[1:], alone)
