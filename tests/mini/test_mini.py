import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vidcfg.mini.pipeline import MINI_PATH, MiniVideoPipeline, load_mini

SIZES = {"num_frames": 5, "height": 16, "width": 12, "num_inference_steps": 3}
PROMPTS = ["a red circle moving left over a navy background", "a green square growing"]


def seeds(*numbers):
    return [torch.Generator().manual_seed(n) for n in numbers]


def run(pipe, prompts=PROMPTS, numbers=(0, 1), **arguments):
    return pipe(prompts, generator=seeds(*numbers), **{**SIZES, **arguments}).frames


def test_output_types_have_their_shapes_and_range(tiny_pipeline):
    array = run(tiny_pipeline)
    tensor = run(tiny_pipeline, output_type="pt")
    latents = run(tiny_pipeline, output_type="latent")
    assert isinstance(array, np.ndarray)
    assert array.shape == (2, 5, 16, 12, 3)
    assert tensor.shape == (2, 5, 3, 16, 12)
    assert latents.shape == (2, 4, 2, 4, 3)
    assert array.min() >= 0
    assert array.max() <= 1
    np.testing.assert_allclose(array, tensor.permute(0, 1, 3, 4, 2).numpy())


def test_tuple_output_holds_the_frames(tiny_pipeline):
    (frames,) = tiny_pipeline(PROMPTS, generator=seeds(0, 1), return_dict=False, **SIZES)
    np.testing.assert_array_equal(frames, run(tiny_pipeline))


def test_guidance_is_uncond_plus_scale_times_the_difference(tiny_pipeline):
    """One Euler step by hand from the two predictions."""
    pipe, noise = tiny_pipeline, torch.randn(2, 4, 2, 4, 3, generator=seeds(5)[0])
    out = run(
        pipe,
        latents=noise,
        guidance_scale=4.0,
        negative_prompt="blurry",
        num_inference_steps=1,
        output_type="latent",
    )
    cond, mask, uncond, negative_mask = pipe.encode_prompt(PROMPTS, "blurry")
    time = pipe.scheduler.timesteps[0].expand(2)
    with torch.no_grad():
        a = pipe.transformer(noise, time, cond, mask).sample
        b = pipe.transformer(noise, time, uncond, negative_mask).sample
    sigma = pipe.scheduler.sigmas
    torch.testing.assert_close(out, noise + (sigma[1] - sigma[0]) * (b + 4.0 * (a - b)))


def test_passes_run_conditional_first_and_only_one_without_guidance(tiny_pipeline, monkeypatch):
    seen, forward = [], tiny_pipeline.transformer.forward
    empty = tiny_pipeline.encode_prompt([""] * 2, do_classifier_free_guidance=False)[0]

    def spy(*args, **kwargs):
        seen.append("uncond" if torch.equal(kwargs["encoder_hidden_states"], empty) else "cond")
        return forward(*args, **kwargs)

    monkeypatch.setattr(tiny_pipeline.transformer, "forward", spy)
    run(tiny_pipeline, guidance_scale=1.0)
    assert seen == ["cond"] * 3
    seen.clear()
    run(tiny_pipeline, guidance_scale=2.0)
    assert seen == ["cond", "uncond"] * 3


def test_noise_of_a_seed_does_not_depend_on_its_place_in_the_batch(tiny_pipeline):
    arguments = {"device": "cpu"}
    pair = tiny_pipeline.prepare_latents(2, 5, 16, 12, generator=seeds(7, 3), **arguments)
    alone = tiny_pipeline.prepare_latents(1, 5, 16, 12, generator=seeds(3), **arguments)
    assert torch.equal(pair[1:], alone)


@pytest.mark.parametrize("numbers", [(7,), (7, 3)])
def test_noise_is_that_of_pipelines_of_diffusers(tiny_pipeline, numbers):
    from diffusers.utils.torch_utils import randn_tensor

    generators = [seeds(*numbers) if len(numbers) > 1 else seeds(*numbers)[0] for _ in range(2)]
    ours = tiny_pipeline.prepare_latents(2, 5, 16, 12, device="cpu", generator=generators[0])
    assert torch.equal(ours, randn_tensor((2, 4, 2, 4, 3), generator=generators[1]))


def test_a_video_does_not_depend_on_its_batch_neighbours(tiny_pipeline):
    pair = run(tiny_pipeline, guidance_scale=3.0)
    alone = run(tiny_pipeline, PROMPTS[1:], (1,), guidance_scale=3.0)
    # Three steps of float32 products whose batch size differs.
    np.testing.assert_allclose(pair[1:], alone, atol=1e-4)


def test_several_videos_per_prompt_keep_prompt_order(tiny_pipeline):
    many = run(tiny_pipeline, numbers=(0, 1, 2, 3), num_videos_per_prompt=2)
    second = run(tiny_pipeline, [PROMPTS[0], PROMPTS[1]], (1, 3))
    np.testing.assert_allclose(many[[1, 3]], second, atol=1e-4)


def test_prompt_embeds_replace_the_prompt(tiny_pipeline):
    embeds, mask, _, _ = tiny_pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    out = run(tiny_pipeline, None, prompt_embeds=embeds, prompt_attention_mask=mask)
    np.testing.assert_array_equal(out, run(tiny_pipeline))


def test_callback_sees_every_step_and_may_change_latents(tiny_pipeline):
    steps = []

    def zero_at_the_end(pipe, step, timestep, tensors):
        steps.append((step, float(timestep)))
        assert set(tensors) == {"latents"}
        return {"latents": tensors["latents"] * 0} if step == 2 else {}

    out = run(tiny_pipeline, callback_on_step_end=zero_at_the_end, output_type="latent")
    assert [s for s, _ in steps] == [0, 1, 2]
    assert [t for _, t in steps] == tiny_pipeline.scheduler.timesteps.tolist()
    assert out.abs().max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 80}, "num_frames is 80, .* Use 77 or 81"),
        ({"height": 18}, "height is 18, .* Use 16 or 20"),
        ({"output_type": "pil"}, "Use one of: np, pt, latent"),
        ({"prompt_embeds": torch.zeros(2, 3, 16)}, "either prompt or prompt_embeds"),
        ({"generator": seeds(0)}, "1 generators for 2 videos"),
        (
            {"guidance_scale": 2.0, "negative_prompt": ["a", "b", "c"]},
            "3 negative prompts for 2 prompts",
        ),
    ],
)
def test_arguments_that_do_not_fit_say_what_to_use(tiny_pipeline, arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny_pipeline(PROMPTS, **{**SIZES, **arguments})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "flow_shift": 2.0}),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "flow_shift": 2.0}),
        ("FlowMatchHeunDiscreteScheduler", {"shift": 2.0}),
    ],
)
def test_other_flow_schedulers_can_be_swapped_in(tiny_pipeline, name, settings):
    import diffusers

    if name.endswith("MultistepScheduler"):
        settings = {**settings, "prediction_type": "flow_prediction"}
    euler = run(tiny_pipeline, num_inference_steps=24, output_type="latent")
    tiny_pipeline.scheduler = getattr(diffusers, name)(**settings)
    other = run(tiny_pipeline, num_inference_steps=24, output_type="latent")
    # All integrate the same ordinary differential equation; 24 Euler steps leave a small error.
    assert (other - euler).square().mean() < 0.05 * euler.square().mean()


def test_saved_pipeline_loads_and_repeats_the_video(tiny_pipeline, tmp_path):
    tiny_pipeline.save_pretrained(tmp_path)
    loaded = MiniVideoPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    # Convolutions of the decoder choose their kernel by memory alignment.
    np.testing.assert_allclose(run(loaded), run(tiny_pipeline), atol=1e-5)


@pytest.fixture(scope="module")
def mini():
    pipe = load_mini()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_embedded_checkpoint_draws_what_the_prompt_says(mini):
    frames = mini(
        ["a red circle moving left over a navy background"],
        generator=seeds(0),
        guidance_scale=3.0,
        num_inference_steps=10,
    ).frames[0]
    is_red = (frames[..., 0] > 0.5) & (frames[..., 1] < 0.45) & (frames[..., 2] < 0.45)
    place = (is_red * np.arange(32)).sum((1, 2)) / is_red.sum((1, 2))
    assert place[0] - place[-1] > 6
    assert np.all(is_red.sum((1, 2)) > 40)
    assert np.abs(frames[:, 0, 0] - np.array([16, 22, 88]) / 255).max() < 0.2


def test_weak_checkpoint_is_another_transformer_of_the_same_shape(mini):
    weak = load_mini(weak=True)
    assert weak.transformer.config.width == mini.transformer.config.width
    a, b = (p.transformer.proj_in.weight for p in (weak, mini))
    assert a.shape == b.shape
    assert not torch.equal(a, b)


def test_embedded_files_are_safetensors_and_json_below_25_mb():
    files = [f for f in Path(MINI_PATH).rglob("*") if f.is_file()]
    assert {f.suffix for f in files} <= {".safetensors", ".json", ".md"}
    assert sum(f.stat().st_size for f in files) < 25e6
    index = json.loads((Path(MINI_PATH) / "model_index.json").read_text())
    assert index["_class_name"] == "MiniVideoPipeline"
