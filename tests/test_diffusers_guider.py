"""`FrameGuidance` in a guider-based pipeline and in modular blocks, saved and loaded."""

import numpy as np
import pytest
import torch
from tiny_pipelines import BUILDERS, generators

import vidcfg
from vidcfg.diffusers import FrameGuidance

RAMP = {"kind": "ramp", "first": 1.0, "last": 0.0}


@pytest.fixture
def tiny():
    return BUILDERS["hunyuan_video15"](num_steps=4)


def guided(tiny, guider):
    tiny.pipe.guider = guider
    call = tiny.shape | tiny.positive | tiny.negative
    return tiny.pipe(**call, generator=generators(0, 1)).frames


def test_uniform_guider_equals_the_stock_guider_bit_for_bit_on_every_run(tiny):
    stock = tiny.stock(3.0, generator=generators(0, 1))
    guider = FrameGuidance(3.0, temporal_ratio=2)
    for _ in range(2):
        assert torch.equal(guided(tiny, guider), stock)
        assert guider.trace.evaluations == {"cond": 8, "uncond": 8}


@pytest.mark.parametrize(
    "setting",
    [
        {"scale": 4.0, "frames": RAMP, "rescale": 0.6},
        {"scale": [1.0, 5.0, 5.0, 1.0], "frames": {"kind": "decay", "end": 0.2}},
        {"scale": 5.0, "clamp": 2.0, "statistics": "clip"},
    ],
)
def test_guider_and_guide_give_the_same_frames_and_passes(tiny, setting):
    guidance = vidcfg.Guidance(**setting)
    # told the latent frames, it leaves the unconditional pass out of a first step that is off
    guider = FrameGuidance(guidance, temporal_ratio=2, latent_frames=3)
    ours = [guided(tiny, guider) for _ in range(2)]
    steps, evaluations = guider.trace.steps, guider.trace.evaluations
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        want = tiny.pipe(**tiny.shape | tiny.positive, generator=generators(0, 1)).frames
    assert torch.equal(ours[0], want)
    assert torch.equal(ours[1], want)
    assert evaluations == trace.evaluations
    for step, wanted in zip(steps, trace.steps, strict=True):
        np.testing.assert_array_equal(step.strength_BF, wanted.strength_BF)


def test_guider_is_off_outside_of_start_and_stop_and_when_disabled(tiny):
    off = tiny.stock(1.0, generator=generators(0, 1))
    guider = FrameGuidance(5.0, temporal_ratio=2, start=0.25, stop=0.5)
    guided(tiny, guider)
    assert [s.step for s in guider.trace.steps] == [1]
    guider.disable()
    assert torch.equal(guided(tiny, guider), off)


def test_guider_is_the_same_after_saving_and_loading(tiny, tmp_path):
    guidance = vidcfg.Guidance(scale={"kind": "cosine", "start": 6.0, "end": 1.0}, frames=RAMP)
    guider = FrameGuidance(guidance, temporal_ratio=2, fps=8.0)
    guider.save_pretrained(tmp_path)
    loaded = FrameGuidance.from_pretrained(tmp_path)
    hidden = "_use_default_values"
    assert {k: v for k, v in loaded.config.items() if k != hidden} == {
        k: v for k, v in guider.config.items() if k != hidden
    }
    assert torch.equal(guided(tiny, guider.new()), guided(tiny, guider))
    assert torch.equal(guided(tiny, loaded), guided(tiny, guider))
    other = guider.new(guidance={"scale": 2.0})
    assert other.config.temporal_ratio == 2
    assert not torch.equal(guided(tiny, other), guided(tiny, guider))


def test_guider_whose_weights_are_a_function_is_not_saved_as_what_cannot_be_loaded(tmp_path):
    guider = FrameGuidance(vidcfg.Guidance(6.0, frames=lambda frame: 1 / (frame + 1)))
    with pytest.raises(ValueError, match="is a function, which no file can hold. Save .* numbers"):
        guider.save_pretrained(tmp_path / "guider")
    assert not list(tmp_path.rglob("*.json"))


def test_guider_is_saved_and_loaded_with_its_pipeline(tiny, tmp_path):
    from diffusers import DiffusionPipeline

    want = guided(tiny, FrameGuidance(vidcfg.Guidance(scale=4.0, frames=RAMP), temporal_ratio=2))
    tiny.pipe.save_pretrained(tmp_path)
    missing = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    pipe = DiffusionPipeline.from_pretrained(tmp_path, **missing)
    pipe.vision_num_semantic_tokens = tiny.pipe.vision_num_semantic_tokens
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe.guider, FrameGuidance)
    call = tiny.shape | tiny.positive | tiny.negative
    assert torch.equal(pipe(**call, generator=generators(0, 1)).frames, want)


def test_modular_blocks_of_wan_are_guided_frame_by_frame():
    from types import SimpleNamespace

    from diffusers.modular_pipelines.modular_pipeline import BlockState
    from diffusers.modular_pipelines.wan.denoise import WanLoopDenoiser

    wan = BUILDERS["wan"]()
    guider = FrameGuidance(vidcfg.Guidance(scale=4.0, frames=RAMP))
    components = SimpleNamespace(guider=guider, transformer=wan.pipe.transformer)
    latents = torch.randn(2, 16, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    state = BlockState(
        prompt_embeds=wan.positive["prompt_embeds"],
        negative_prompt_embeds=wan.negative["negative_prompt_embeds"],
        latent_model_input=latents,
        num_inference_steps=2,
        dtype=torch.float32,
        attention_kwargs=None,
    )
    time = torch.tensor(900.0)
    fields = {"encoder_hidden_states": ("prompt_embeds", "negative_prompt_embeds")}
    _, after = WanLoopDenoiser(fields)(components, state, 0, time)
    cond, uncond = (
        wan.pipe.transformer(
            latents, time.expand(2), encoder_hidden_states=text, return_dict=False
        )[0]
        for text in (state.prompt_embeds, state.negative_prompt_embeds)
    )
    strength_F = guider.trace.surfaces[0].strength_KF[0]
    assert strength_F[0] == 4.0 > strength_F[1] > strength_F[2] >= 1
    for f, strength in enumerate(strength_F):
        want = uncond[:, :, f] + float(strength) * (cond[:, :, f] - uncond[:, :, f])
        # float32 rounding of one product and one sum
        torch.testing.assert_close(after.noise_pred[:, :, f], want, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"scale": 4.0, "threshold": {"floor": 1.0}}, "cannot do threshold"),
        ({"scale": 4.0, "method": {"kind": "perp_neg"}}, "cannot do method: perp_neg"),
        ({"scale": 4.0, "micro_batch": 1, "passes": "batched"}, "passes: batched, micro_batch"),
    ],
)
def test_what_a_guider_cannot_do_is_refused_by_name(setting, match):
    with pytest.raises(ValueError, match=match):
        FrameGuidance(setting)


def test_packed_tokens_need_the_number_of_latent_frames():
    with pytest.raises(ValueError, match="Pass latent_frames"):
        FrameGuidance(4.0, layout="tokens", latent_frames=0)
    with pytest.raises(ValueError, match="Pass latent_frames"):
        FrameGuidance(4.0, layout="tokens")
    guider = FrameGuidance({"scale": 4.0, "frames": RAMP}, layout="tokens", latent_frames=3)
    guider.set_state(step=0, num_inference_steps=2, timestep=torch.tensor(1000))
    cond, uncond = torch.randn(2, 2, 12, 5)
    guided = guider.forward(cond, uncond).pred
    strength = guider.trace.surfaces[0].strength_KF[0]
    want = uncond[:, 4:8] + float(strength[1]) * (cond[:, 4:8] - uncond[:, 4:8])
    torch.testing.assert_close(guided[:, 4:8], want)


def test_negative_prompt_is_asked_for_before_a_run_even_if_its_last_step_was_off(tiny):
    guider = FrameGuidance({"scale": [5.0, 5.0, 1.0, 1.0]}, temporal_ratio=2)
    for _ in range(2):
        assert guider.num_conditions == 2
        guided(tiny, guider)
        assert guider.trace.evaluations == {"cond": 8, "uncond": 4}


def test_negative_prompt_is_asked_for_after_a_run_that_ended_early_on_a_step_that_was_off():
    """As of the first of two experts, which never comes to the last step."""
    guider = FrameGuidance({"scale": [5.0, 1.0, 1.0]})
    for _ in range(2):
        assert guider.num_conditions == 2
        for step, passes in ((0, 2), (1, 1)):
            guider.set_state(step=step, num_inference_steps=3, timestep=torch.tensor(1000))
            assert guider.num_conditions == passes
            guider.forward(*torch.randn(passes, 2, 4, 3, 2, 6))
    assert [step.step for step in guider.trace.steps] == [0, 1]


@pytest.mark.parametrize(("ratio", "is_right"), [(4, True), (2, False)])
def test_temporal_ratio_is_held_against_the_frames_of_a_run_that_tells_them(ratio, is_right):
    from diffusers.modular_pipelines.modular_pipeline import BlockState

    texts = torch.randn(2, 2, 5, 8)
    state = BlockState(latents=torch.zeros(2, 4, 3, 2, 6), num_frames=9, a=texts[0], b=texts[1])
    guider = FrameGuidance(4.0, temporal_ratio=ratio)
    guider.set_state(step=0, num_inference_steps=2, timestep=torch.tensor(1000))
    if is_right:
        assert len(guider.prepare_inputs_from_block_state(state, {"text": ("a", "b")})) == 2
        return
    with pytest.raises(ValueError, match="9 frames of 3 latent ones.*be 5. Pass temporal_ratio=4"):
        guider.prepare_inputs_from_block_state(state, {"text": ("a", "b")})
