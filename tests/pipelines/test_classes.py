"""Every further pipeline class: its stock pipeline at one scale, and under a random surface.

How the stock pipeline runs a surface, and how far ours is from it: tests/helpers/class_checks.py.
"""

from dataclasses import replace

import numpy as np
import pytest
from class_checks import surface, uniform
from diffusers.models.attention_dispatch import attention_backend
from tiny_base import rebuilt
from tiny_classes import CLASSES, tiny_class
from tiny_text import with_prompts

import vidcfg
from vidcfg.guidance.frame_map import BesideMap
from vidcfg.pipelines.families import FAMILIES, family_of

classes = pytest.mark.parametrize("name", [name for name in CLASSES if "," not in name])
cases = pytest.mark.parametrize("name", list(CLASSES))


@classes
def test_uniform_scale_equals_the_stock_pipeline(name):
    case = tiny_class(name)
    found = uniform(case)
    if family_of(case.tiny.pipe).tested == "exact":
        assert found == 0.0
    else:
        assert found < 5e-6  # rounding of float32


@cases
def test_random_surface_equals_the_stock_pipeline_with_a_scale_by_frame_and_step(name):
    case = tiny_class(name)
    # Rows that run alone, and scales in float64 there: a few roundings of float32 a step.
    assert surface(case) < 5e-6


STEP_DISTILLED = {"use_meanflow": True}
SPARSE = dict.fromkeys(("attention_wT", "attention_wH", "attention_wW"), 1)
SPARSE |= {"attention_type": "nabla", "attention_P": 0.5, "attention_add_sta": True}
SPARSE |= {"axes_dims": (4, 4, 8), "model_dim": 32, "ff_dim": 64}


@pytest.mark.parametrize(
    ("name", "settings", "size"),
    [
        ("HunyuanVideo15ImageToVideoPipeline", STEP_DISTILLED, {}),
        ("Kandinsky5T2VPipeline", SPARSE, {"height": 128, "width": 256}),
    ],
)
def test_published_models_give_their_denoiser_further_tensors(name, settings, size):
    case = CLASSES[name]()
    pipe = case.tiny.pipe
    pipe.transformer = rebuilt(pipe.transformer, **settings)
    case.tiny.shape.update(size)
    with attention_backend("flex" if settings is SPARSE else "native"):
        assert uniform(case) == 0.0
        assert surface(case) < 5e-6


@classes
def test_pipeline_is_as_before_afterwards_and_plans_what_it_ran(name):
    case = tiny_class(name)
    tiny, before = case.tiny, vars(case.tiny.denoiser).copy()
    cls = type(tiny.pipe)
    assert cls.__name__ == name
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=1.0), **tiny.negative):
        assert type(tiny.pipe) is not cls
    assert type(tiny.pipe) is cls
    assert vars(tiny.denoiser) == before
    # What a dry run asks: pixel frames of each latent frame, without what stands before them.
    family = family_of(tiny.pipe)
    frame_map, shown = family.frame_map(tiny.pipe), [n for n in case.pixels if n]
    assert [len(pixels) for pixels in frame_map.pixels_of(sum(shown))] == shown


def test_keyframe_at_frame_0_is_frame_0_of_the_video_behind_reference_images():
    tiny = tiny_class("WanVACEPipeline").tiny
    frames = {"kind": "keyframes", "at": [0], "floor": 0.0, "reach": 1}
    guidance = vidcfg.Guidance(scale=5.0, frames=frames)
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        tiny.unguided(generator=tiny_class("WanVACEPipeline").seeds)
    # two reference images, then the latent of frame 0, then the one of frames 1 to 4
    np.testing.assert_array_equal(trace.surfaces[0].strength_KF[0], [5.0, 5.0, 5.0, 1.0])
    np.testing.assert_array_equal(trace.surfaces[0].strength_KT[0], [5.0, 1.0, 1.0, 1.0, 1.0])


def test_more_frames_than_the_latents_have_is_an_error_that_names_the_number():
    tiny = tiny_class("WanVACEPipeline").tiny
    with pytest.raises(ValueError, match=r"num_frames=9, but latents of 2 frames.* Use 5\."):
        FAMILIES["wan_vace"].map_of(tiny.pipe, {"num_frames": 9}, 2)
    assert FAMILIES["wan_vace"].map_of(tiny.pipe, {"num_frames": 9}, 5).before == 2
    assert not isinstance(FAMILIES["wan"].map_of(tiny.pipe, {"num_frames": 9}, 5), BesideMap)


@pytest.mark.parametrize("num_prompts", [1, 2])
@pytest.mark.parametrize("name", ["LattePipeline", "AllegroPipeline"])
def test_negative_prompt_is_encoded_as_the_stock_pipeline_does_beside_a_longer_prompt(
    name, num_prompts
):
    case = CLASSES[name]()
    tiny = with_prompts(case.tiny)
    for given, text in ((tiny.positive, "prompt"), (tiny.negative, "negative_prompt")):
        given[text] = given[text][:num_prompts]
    tiny.shape.pop("negative_prompt")
    tiny.shape.pop("mask_feature", None)
    case = replace(case, tiny=tiny, one_generator=num_prompts == 1)
    assert uniform(case) == 0.0


def test_learned_variance_of_latte_is_read_by_no_rule():
    case = tiny_class("LattePipeline")
    weight = case.tiny.pipe.transformer.proj_out.weight
    guidance, made = vidcfg.Guidance(scale=5.0, rescale=1.0), []
    for factor in (1.0, 50.0):
        # patches of 2 x 2 with 8 channels each: the last 4 are the variance
        weight.data.view(4, 8, -1)[:, 4:] *= factor
        with vidcfg.guide(case.tiny.pipe, guidance, **case.tiny.negative):
            made.append(case.tiny.unguided(generator=case.seeds))
    weight.data.view(4, 8, -1)[:, 4:] /= 50.0
    np.testing.assert_array_equal(*made)


@pytest.mark.parametrize(
    ("name", "call", "match"),
    [
        ("ChronoEditPipeline", {"enable_temporal_reasoning": True}, "reasoning=False"),
        ("AnimateDiffControlNetPipeline", {"guess_mode": True}, "guess_mode=False"),
        (
            "SkyReelsV2DiffusionForcingPipeline",
            {"overlap_history": 5, "base_num_frames": 5},
            "Use a base_num_frames that is not below num_frames",
        ),
    ],
)
def test_a_call_that_cannot_be_guided_is_refused_with_what_to_do(name, call, match):
    tiny = tiny_class(name).tiny
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0), **tiny.negative),
        pytest.raises(ValueError, match=match),
    ):
        tiny.unguided(**call)


def test_diffusion_forcing_gives_every_frame_the_strength_of_its_own_step():
    case = tiny_class("SkyReelsV2DiffusionForcingPipeline")
    settings = [vidcfg.Guidance(scale=3.0), vidcfg.Guidance(scale=[3.0, 4.0, 5.0])]
    with vidcfg.guide(case.tiny.pipe, settings, **case.tiny.negative) as trace:
        case.tiny.unguided(generator=case.seeds)
    expected = [[3, 1, 1], [4, 3, 1], [5, 4, 3], [1, 5, 4], [1, 1, 5]]
    np.testing.assert_array_equal([step.strength_BF[1] for step in trace.steps], expected)
    np.testing.assert_array_equal(trace.surfaces[1].strength_KF, expected)
    # nine frames: one, four and four of each latent
    wide = np.repeat(expected, [1, 4, 4], axis=1)
    np.testing.assert_array_equal(trace.surfaces[1].strength_KT, wide)


@pytest.mark.parametrize("method", ["cads", "zero_star", {"kind": "apg", "momentum": -0.5}])
def test_rules_that_go_from_step_to_step_are_refused_where_frames_are_on_different_ones(method):
    case = tiny_class("SkyReelsV2DiffusionForcingPipeline")
    guidance = vidcfg.Guidance(scale=3.0, method=method)
    with (
        vidcfg.guide(case.tiny.pipe, guidance, **case.tiny.negative),
        pytest.raises(ValueError, match="different steps. Use cfg, or ar_step=0"),
    ):
        case.tiny.unguided(generator=case.seeds)
