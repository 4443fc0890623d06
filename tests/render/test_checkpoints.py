"""Checkpoint folders of other kinds than text to video, through the command: frames as stock's."""

import json
import wave

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler, DiffusionPipeline, MotionAdapter
from PIL import Image
from tiny_base import vision_encoder
from tiny_images import flux, sd15
from tiny_streams import ltx2, vocoder
from tiny_text import with_prompts
from tiny_unets import animatediff, svd
from tiny_wan import cogvideox_i2v, wan_i2v

from vidcfg.media.read import read_video
from vidcfg.render import __main__ as cli

CONFIG = """\
schema: 1
name: checkpoint
model: {{kind: diffusers, checkpoint: "{folder}", device: cpu, dtype: float32}}
prompts: [{prompt}]
seeds: 3
video: {{num_frames: {num_frames}, height: 16, width: 32, fps: 8}}
sampling: {{num_steps: 3, scheduler: pipeline}}
guidance: {{{guidance}}}
output: {{dir: "{out}", video: ffv1}}
"""
TEXT = "{text: a red circle moving left, negative: blurry}"


def _render(tmp_path, folder, *overrides, prompt=TEXT, num_frames=5, guidance="scale: 4.0"):
    """Exit code, and the written frames [T, H, W, 3] with their record if there are any."""
    (tmp_path / "run.yaml").write_text(
        CONFIG.format(
            folder=folder,
            prompt=prompt,
            num_frames=num_frames,
            guidance=guidance,
            out=tmp_path / "out",
        )
    )
    sets = [word for override in overrides for word in ("--set", override)]
    code = cli.main([str(tmp_path / "run.yaml"), "--quiet", *sets])
    if code:
        return code, None, None
    (path,) = (tmp_path / "out").glob("*.mkv")
    frames = read_video(path).as_uint8().transpose(0, 2, 3, 1)
    return code, frames, json.loads(path.with_suffix(".json").read_text())


def _stock(pipe, **call):
    """What the pipeline makes with its own guidance, as whole levels."""
    pipe.set_progress_bar_config(disable=True)
    call |= {"num_inference_steps": 3, "height": 16, "width": 32, "output_type": "np"}
    output = pipe(**call, generator=torch.Generator().manual_seed(3))
    made = output.images if hasattr(output, "images") else output.frames[0]
    return np.round(np.asarray(made) * 255).astype(np.uint8)


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "kite.png")
    return tmp_path / "kite.png"


def test_svd_starts_from_its_image_with_its_own_ramp(tmp_path, picture, capsys):
    tiny = svd()
    # Pictures, unlike tensors, reach the encoder at 224 x 224.
    tiny.pipe.register_modules(image_encoder=vision_encoder(32, projected=True, size=224))
    tiny.pipe.save_pretrained(tmp_path / "svd")
    code, frames, record = _render(
        tmp_path,
        tmp_path / "svd",
        prompt=f"{{text: a kite, image: {picture}}}",
        guidance="scale: 3.0, frames: {kind: ramp, first: 0.0, last: 1.0}",
    )
    assert code == 0
    want = _stock(
        DiffusionPipeline.from_pretrained(tmp_path / "svd"),
        image=Image.open(picture),
        num_frames=5,
        fps=8,
        min_guidance_scale=1.0,
        max_guidance_scale=3.0,
    )
    assert len({frame.tobytes() for frame in want}) == 5
    assert np.array_equal(frames, want)
    assert record["surface"]["strength"][0] == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert "svd reads no prompt" in capsys.readouterr().err


@pytest.mark.parametrize("build", [wan_i2v, cogvideox_i2v])
def test_image_to_video_starts_from_the_middle_of_an_image_of_another_ratio(
    tmp_path, capsys, build
):
    with_prompts(build(batch=1)).pipe.save_pretrained(tmp_path / "i2v")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    prompt = f"{{text: a red circle, negative: blurry, image: {tmp_path / 'wide.png'}}}"
    code, frames, _ = _render(tmp_path, tmp_path / "i2v", prompt=prompt, num_frames=9)
    assert code == 0
    note = "33 % of its width is cut off. To keep it, write video.width: 48 and video.height: 16"
    assert note in capsys.readouterr().err
    want = _stock(
        DiffusionPipeline.from_pretrained(tmp_path / "i2v"),
        prompt="a red circle",
        negative_prompt="blurry",
        image=Image.fromarray(pixels[:, 10:50]),
        num_frames=9,
        guidance_scale=4.0,
    )
    assert np.array_equal(frames, want)


def test_image_model_writes_its_picture_with_every_pixel(tmp_path):
    with_prompts(sd15()).pipe.save_pretrained(tmp_path / "sd15")
    code, frames, record = _render(tmp_path, tmp_path / "sd15", num_frames=1)
    assert code == 0
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "sd15")
    call = {"prompt": "a red circle moving left", "negative_prompt": "blurry"}
    want = _stock(pipe, **call, guidance_scale=4.0)
    assert np.array_equal(frames, want)
    with Image.open(tmp_path / "out" / record["files"]["image"]) as image:
        assert np.array_equal(np.asarray(image), want[0])
    assert record["trace"]["evaluations"] == {"cond": 4, "uncond": 4}


def test_animatediff_folder_has_the_frames_of_the_stock_pipeline(tmp_path):
    with_prompts(animatediff()).pipe.save_pretrained(tmp_path / "motion")
    code, frames, _ = _render(tmp_path, tmp_path / "motion")
    assert code == 0
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "motion")
    call = {"prompt": "a red circle moving left", "negative_prompt": "blurry"}
    assert np.array_equal(frames, _stock(pipe, **call, num_frames=5, guidance_scale=4.0))


def test_motion_adapter_moves_an_image_checkpoint(tmp_path):
    with_prompts(sd15()).pipe.save_pretrained(tmp_path / "sd15")
    torch.manual_seed(0)
    adapter = MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=2,
        use_motion_mid_block=False,
    )
    # Motion modules start as the identity.
    torch.nn.init.normal_(adapter.down_blocks[0].motion_modules[0].proj_out.weight)
    adapter.save_pretrained(tmp_path / "adapter")
    code, frames, record = _render(
        tmp_path, tmp_path / "sd15", f"model.motion_adapter={tmp_path / 'adapter'}"
    )
    assert code == 0
    pipe = AnimateDiffPipeline.from_pretrained(
        tmp_path / "sd15", motion_adapter=MotionAdapter.from_pretrained(tmp_path / "adapter")
    )
    pipe.scheduler = DDIMScheduler.from_pretrained(
        tmp_path / "sd15",
        subfolder="scheduler",
        clip_sample=False,
        timestep_spacing="linspace",
        beta_schedule="linear",
        steps_offset=1,
    )
    call = {"prompt": "a red circle moving left", "negative_prompt": "blurry"}
    assert np.array_equal(frames, _stock(pipe, **call, num_frames=5, guidance_scale=4.0))
    assert record["model"]["pipeline"] == "AnimateDiffPipeline"


def test_embedded_scale_of_a_distilled_image_model_is_the_scale_of_the_file(tmp_path):
    with_prompts(flux()).pipe.save_pretrained(tmp_path / "flux")
    code, frames, record = _render(
        tmp_path,
        tmp_path / "flux",
        prompt="a red circle moving left",
        num_frames=1,
        guidance="method: embedded, scale: 4.5",
    )
    assert code == 0
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "flux")
    want = _stock(pipe, prompt="a red circle moving left", guidance_scale=4.5)
    assert np.array_equal(frames, want)
    other = _stock(pipe, prompt="a red circle moving left", guidance_scale=1.0)
    assert not np.array_equal(want, other)
    assert record["trace"]["evaluations"] == {"embedded": 3}


def test_sound_of_ltx2_is_the_stock_pipeline_s(tmp_path):
    tiny = with_prompts(ltx2())
    tiny.pipe.register_modules(vocoder=vocoder())
    tiny.pipe.save_pretrained(tmp_path / "ltx2")
    size = "video={num_frames: 9, height: 32, width: 64, fps: 8}"
    code, frames, record = _render(tmp_path, tmp_path / "ltx2", size)
    assert code == 0
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "ltx2")
    pipe.set_progress_bar_config(disable=True)
    off = {"stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0}
    made = pipe(
        "a red circle moving left",
        negative_prompt="blurry",
        num_frames=9,
        height=32,
        width=64,
        frame_rate=8.0,
        num_inference_steps=3,
        guidance_scale=4.0,
        output_type="np",
        generator=torch.Generator().manual_seed(3),
        **off | {f"audio_{name}": value for name, value in off.items()},
    )
    # float32 rounding: at most one level of 255
    assert np.abs(frames - made.frames[0] * 255).max() <= 1
    with wave.open(str(tmp_path / "out" / record["files"]["audio"])) as file:
        assert file.getframerate() == pipe.vocoder.config.output_sampling_rate
        levels = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    want = made.audio[0].T.float().numpy().ravel()
    assert np.abs(want).max() > 1e-3
    # 16 bits, and float32 rounding
    np.testing.assert_allclose(levels / 32767, want, atol=1e-4)


def test_settings_that_do_not_fit_a_checkpoint_are_one_line_without_a_traceback(
    tmp_path, picture, capsys
):
    svd().pipe.save_pretrained(tmp_path / "svd")
    code, _, _ = _render(tmp_path, tmp_path / "svd", prompt="a kite", guidance="scale: 3.0")
    assert code == 2
    assert "has no image, but this pipeline starts from one" in capsys.readouterr().err
    square = f"{{text: a kite, image: {picture}}}"
    code, _, _ = _render(tmp_path, tmp_path / "svd", "video.width=30", prompt=square)
    assert code == 2
    error = capsys.readouterr().err
    assert "video.width is 30, but svd makes multiples of 8. Use 24 or 32." in error
    assert "Traceback" not in error
