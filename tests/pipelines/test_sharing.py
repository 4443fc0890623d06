"""Evaluations shared by equal samples: of one image prompt, and what happens under a cache."""

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from tiny_pipelines import BUILDERS, generators

import vidcfg

SCALES = (2.0, 5.0, 5.0)


def first_sample(tensors: dict, times: int) -> dict:
    """The first row of every tensor, several times over."""
    return {
        name: tensor[:1].repeat(times, *[1] * (tensor.ndim - 1))
        for name, tensor in tensors.items()
    }


def guided(tiny, settings, seeds, inputs: dict, negative: dict):
    with vidcfg.guide(tiny.pipe, settings, **negative) as trace:
        latents = tiny.unguided(**inputs, generator=generators(*seeds))
    return latents, trace


@pytest.mark.parametrize("name", ["wan_i2v", "cogvideox_i2v", "svd"])
def test_samples_of_one_image_share_evaluations_and_equal_unshared_ones_bit_for_bit(name):
    tiny, found = BUILDERS[name](batch=3), {}
    inputs, negative = first_sample(tiny.positive, 3), first_sample(tiny.negative, 3)
    for share in (True, False):
        settings = [vidcfg.Guidance(scale=s, micro_batch=1, share=share) for s in SCALES]
        found[share] = guided(tiny, settings, (3, 3, 3), inputs, negative)
        trace = found[share][1]
        assert trace.evaluations == trace.planned.evaluations
    (shared, trace), (unshared, other) = found[True], found[False]
    assert torch.equal(shared, unshared)
    assert torch.equal(shared[1], shared[2])
    assert not torch.equal(shared[0], shared[1])
    # Two branches: once at the first step, then once for each of the two scales.
    assert [step.evaluations for step in trace.steps] == [
        {"cond": 1, "uncond": 1},
        {"cond": 2, "uncond": 2},
        {"cond": 2, "uncond": 2},
    ]
    assert other.total == 2 * 3 * 3


@pytest.mark.parametrize("name", ["cogvideox_i2v", "svd"])
def test_samples_of_different_images_share_nothing_that_sees_the_image(name):
    tiny = BUILDERS[name](batch=2)
    texts = {n: t for n, t in tiny.positive.items() if n != "image"}
    inputs = tiny.positive | first_sample(texts, 2)
    assert not torch.equal(inputs["image"][0], inputs["image"][1])
    negative = first_sample(tiny.negative, 2)
    settings = [vidcfg.Guidance(scale=3.0, micro_batch=1)] * 2
    latents, trace = guided(tiny, settings, (3, 3), inputs, negative)
    assert not torch.equal(latents[0], latents[1])
    # The unconditional side of svd is an image of zeros, which both see while noise is equal.
    first = {"cond": 2, "uncond": 1 if name == "svd" else 2}
    assert [s.evaluations for s in trace.steps] == [first, *[{"cond": 2, "uncond": 2}] * 2]


def test_equal_samples_that_part_under_a_cache_equal_runs_of_their_own():
    """They are equal for three steps, then their scales part; a cache keeps state by row."""
    num_steps = 6
    schedules = ([4.0] * num_steps, [4.0] * 3 + [1.5] * 3, [4.0] * 3 + [7.0] * 3)
    tiny = BUILDERS["wan"](batch=3, num_steps=num_steps)
    inputs, negative = first_sample(tiny.positive, 3), first_sample(tiny.negative, 3)
    tiny.pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.3))
    settings = [vidcfg.Guidance(scale=scale, share=True) for scale in schedules]
    together, trace = guided(tiny, settings, (3, 3, 3), inputs, negative)
    assert trace.evaluations == trace.planned.evaluations
    # Nothing is shared: a row of the cache belongs to one sample over all steps.
    assert trace.evaluations == {"cond": 18, "uncond": 18}
    for b, setting in enumerate(settings):
        alone, _ = guided(tiny, setting, (3,), first_sample(inputs, 1), first_sample(negative, 1))
        # matrix products of other batch shapes round differently: a few ulps over six steps
        torch.testing.assert_close(together[b : b + 1], alone, rtol=2e-5, atol=2e-5)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[0], together[2])


@pytest.mark.parametrize("method", ["renorm", "perp_neg", {"kind": "apg", "momentum": -0.5}])
def test_samples_of_one_prompt_beside_two_negative_ones_have_the_bits_of_unshared_ones(method):
    from vidcfg.mini.pipeline import load_mini

    pipe, found = load_mini(), []
    for share in (True, False):
        setting = vidcfg.Guidance(scale=4.0, method=method, micro_batch=1, share=share)
        with vidcfg.guide(pipe, setting, negative_prompt=["a red circle", "blurry"]) as trace:
            call = {"num_frames": 5, "num_inference_steps": 2, "output_type": "latent"}
            found.append(pipe(["a green square"] * 2, **call, generator=generators(3, 3))[0])
        assert trace.steps[0].evaluations["cond"] == (1 if share else 2)
    assert torch.equal(*found)
