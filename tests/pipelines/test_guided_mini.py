"""The embedded model is one more pipeline: guided from outside it equals its own guidance."""

import pytest
import torch
from tiny_pipelines import generators

import vidcfg
from vidcfg.mini.pipeline import load_mini
from vidcfg.pipelines.load import MiniModel, load_pipeline

PROMPTS = ["a red circle moving left over a navy background", "a blue cross growing"]


@pytest.fixture(scope="module")
def mini():
    pipe = load_mini()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(pipe, scale: float = 1.0, **extra) -> torch.Tensor:
    shape = {"num_frames": 9, "num_inference_steps": 2, "output_type": "latent"}
    call = shape | {"generator": generators(0, 1), "guidance_scale": scale} | extra
    return pipe(PROMPTS, **call).frames


def test_uniform_scale_equals_its_own_guidance_bit_for_bit(mini):
    stock = latents(mini, 3.5, negative_prompt=["blurry", ""])
    with vidcfg.guide(mini, 3.5, negative_prompt=["blurry", ""]) as trace:
        ours = latents(mini)
    assert torch.equal(ours, stock)
    assert trace.evaluations == {"cond": 4, "uncond": 4} == trace.planned.evaluations


def test_several_videos_of_a_prompt_keep_its_negative_prompt(mini):
    seeds = generators(0, 1, 2, 3)
    with vidcfg.guide(
        mini, vidcfg.Guidance(scale=4.0, micro_batch=1), negative_prompt=["blurry", ""]
    ):
        together = latents(mini, num_videos_per_prompt=2, generator=seeds)
    for row, negative in ((1, "blurry"), (2, "")):
        prompt = PROMPTS[row // 2]
        with vidcfg.guide(
            mini, vidcfg.Guidance(scale=4.0, micro_batch=1), negative_prompt=negative
        ):
            alone = mini(
                prompt,
                num_frames=9,
                num_inference_steps=2,
                output_type="latent",
                generator=generators(row),
                guidance_scale=1.0,
            ).frames
        assert torch.equal(together[row : row + 1], alone)


def test_conditions_of_multi_are_encoded_by_the_model(mini):
    method = {
        "kind": "multi",
        "conditions": [{"name": "cross", "prompt": "a blue cross", "scale": 2.0}],
    }
    with vidcfg.guide(mini, vidcfg.Guidance(scale=2.0, method=method)) as trace:
        guided = latents(mini)
    assert trace.evaluations == {"cond": 4, "uncond": 4, "condition:cross": 4}
    with vidcfg.guide(mini, vidcfg.Guidance(scale=2.0)):
        plain = latents(mini)
    assert not torch.equal(guided, plain)


def test_bfloat16_equals_the_stock_pipeline_bit_for_bit():
    pipe = load_pipeline(MiniModel(device="cpu", dtype="bfloat16"))
    call = {
        "prompt": ["a red circle moving left over a navy background", "a blue square"],
        "num_frames": 5,
        "height": 16,
        "width": 32,
        "num_inference_steps": 2,
        "output_type": "latent",
    }
    negative = ["blurry", "blurry"]

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in (0, 1)]

    own = {"negative_prompt": negative, "guidance_scale": 4.0}
    stock = pipe(**call, **own, generator=generators()).frames
    guidance = vidcfg.Guidance(scale=4.0)
    with vidcfg.guide(pipe, guidance, negative_prompt=negative):
        ours = pipe(**call, guidance_scale=1.0, generator=generators()).frames
    assert torch.equal(ours, stock)


def test_an_empty_list_of_negative_prompts_is_refused(mini):
    with (
        pytest.raises(ValueError, match="negative_prompt holds 0 texts for 2 prompts"),
        vidcfg.guide(mini, 4.0, negative_prompt=[]),
    ):
        latents(mini)
