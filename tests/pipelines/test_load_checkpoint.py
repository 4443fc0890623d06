"""`model: {kind: diffusers}`: folders work offline, and what fails says what to do in one line."""

import json
import sys

import pytest
import torch
from tiny_base import generators
from tiny_text import with_prompts
from tiny_video import wan

import vidcfg
from vidcfg.mini.scorer import load_scorer
from vidcfg.pipelines.load import MiniModel, ModelError, load_pipeline
from vidcfg.render.config import RenderConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("wan")
    with_prompts(wan()).pipe.save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def load(checkpoint, **settings):
    config = RenderConfig(
        schema=1,
        name="checkpoint",
        model={"kind": "diffusers", "checkpoint": str(checkpoint), **settings},
        prompts=["a kite"],
        video={"num_frames": 9, "height": 16, "width": 32, "fps": 8.0},
        sampling={"num_steps": 2},
        guidance={"scale": 3.0},
        output={"dir": "out"},
    )
    return load_pipeline(config.model)


@pytest.mark.parametrize(
    ("dtype", "want"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_a_folder_is_loaded_in_its_dtype_with_its_own_class(folder, dtype, want):
    pipe = load(folder, device="cpu", dtype=dtype)
    assert type(pipe).__name__ == "WanPipeline"
    assert pipe.transformer.dtype == want


def test_attention_backend_tiling_and_compilation_are_settings(folder):
    pipe = load(folder, device="cpu", attention="native", vae_tiling=True, compile=True)
    assert pipe.vae.use_tiling
    block = pipe.transformer.blocks[0]
    assert block.attn1.processor._attention_backend is not None
    assert block._compiled_call_impl is not None
    assert pipe.transformer._compiled_call_impl is None


@pytest.mark.slow
def test_a_compiled_checkpoint_is_guided_as_a_plain_one(folder):
    latents = []
    for is_compiled in (False, True):
        pipe = load(folder, device="cpu", compile=is_compiled)
        with vidcfg.guide(pipe, 4.0, negative_prompt="blurry") as trace:
            made = pipe(
                ["a red circle", "a blue square"],
                num_frames=9,
                height=16,
                width=32,
                num_inference_steps=2,
                guidance_scale=1.0,
                output_type="latent",
                generator=generators(0, 1),
            )
        latents.append(made.frames)
        assert trace.evaluations == {"cond": 4, "uncond": 4}
    assert not torch.equal(*latents)
    # compiled kernels sum in another order
    torch.testing.assert_close(*latents, rtol=1e-4, atol=1e-4)


def test_mini_model_in_bfloat16_keeps_its_codec_in_float32():
    pipe = load_pipeline(MiniModel(device="cpu", dtype="bfloat16"))
    assert pipe.transformer.dtype == pipe.text_encoder.dtype == torch.bfloat16
    assert pipe.vae.dtype == torch.float32


def test_loading_gives_no_warning_on_how_a_dtype_is_named(folder, recwarn):
    load(folder, device="cpu", dtype="bfloat16")
    load_pipeline(MiniModel(device="cpu"))
    load_scorer()
    assert [str(w.message) for w in recwarn if "dtype" in str(w.message)] == []


@pytest.mark.parametrize(
    ("checkpoint", "settings", "match"),
    [
        ("nowhere/at/all", {}, "no such folder. Name a folder, or a repository"),
        ("./nowhere", {}, "no such folder"),
        ("somebody/something", {}, "not on this machine.*hf download somebody/something"),
        ("EMPTY", {}, "a folder without model_index.json"),
        ("WAN", {"revision": "v2"}, "model.revision is v2, but .* is a folder"),
        ("WAN", {"attention": "telepathy"}, "model.attention is telepathy, which transformer"),
        ("UNKNOWN", {}, "cannot guide a DDPMPipeline.*register_family"),
        ("BROKEN", {}, "the pipeline in .* cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_with_what_to_do(
    folder, tmp_path, checkpoint, settings, match
):
    places = {"EMPTY": tmp_path, "WAN": folder}
    if checkpoint == "UNKNOWN":
        from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

        unet = UNet2DModel(
            block_out_channels=(8,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            norm_num_groups=2,
            layers_per_block=1,
        )
        DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
        places["UNKNOWN"] = tmp_path
    if checkpoint == "BROKEN":
        (tmp_path / "model_index.json").write_text(
            json.dumps({"_class_name": "WanPipeline", "transformer": ["diffusers", "WanX"]})
        )
        places["BROKEN"] = tmp_path
    with pytest.raises(ModelError, match=match) as caught:
        load(places.get(checkpoint, checkpoint), device="cpu", **settings)
    assert "\n" not in str(caught.value)


def test_too_little_memory_says_which_offload_to_try(folder, monkeypatch):
    from diffusers import WanPipeline

    def full(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(WanPipeline, "to", full)
    with pytest.raises(ModelError, match="does not fit into the memory.*Write model.offload: mod"):
        load(folder, device="cpu")


def test_no_cuda_is_told_before_anything_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="model.device is cuda, but no CUDA device.*Write cpu"):
        load(folder, device="cuda")


def test_libraries_show_no_bars_of_their_own_while_a_checkpoint_is_loaded(
    folder, capfd, monkeypatch
):
    import diffusers.utils.logging as of_diffusers
    import transformers.utils.logging as of_transformers
    from huggingface_hub.utils import are_progress_bars_disabled

    libraries = of_diffusers, of_transformers
    # A command that was to be quiet leaves its process without bars.
    of_hub = sys.modules["huggingface_hub.utils.tqdm"]
    monkeypatch.setattr(of_hub, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    for library in libraries:
        library.enable_progress_bar()
    load(folder, device="cpu")
    assert "Loading" not in capfd.readouterr().err
    after = [are_progress_bars_disabled(), *(x.is_progress_bar_enabled() for x in libraries)]
    assert after == [False, True, True]
