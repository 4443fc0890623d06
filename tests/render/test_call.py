"""What a pipeline is called with, by the parameters of its own call, and what comes out of it."""

import inspect
import re
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers.video_processor import VideoProcessor
from PIL import Image

from vidcfg.media.video import PIECE, MediaError
from vidcfg.pipelines.families import FAMILIES
from vidcfg.render.call import (
    Levels,
    audio_of,
    call_arguments,
    check_made,
    check_shape,
    converted_in_pieces,
    frames_of,
    image_note,
    load_image,
)

CHECKPOINT = "model={kind: diffusers, checkpoint: Somebody/Video-5B}"


def _parameters(name):
    return inspect.signature(getattr(diffusers, name).__call__).parameters


def _picture(path, width, height):
    """Red rises from left to right, green from top to bottom."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([x, y, np.zeros_like(x)], axis=-1)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def _call(config, family, pipeline, *overrides):
    settings = config(CHECKPOINT, "guidance={scale: 3.0}", *overrides)
    video, num_steps = settings.video, settings.sampling.num_steps
    accepted = _parameters(pipeline)
    return call_arguments(settings.prompts[0], video, num_steps, FAMILIES[family], accepted)


@pytest.mark.parametrize(
    ("family", "pipeline", "extra"),
    [
        ("ltx", "LTXPipeline", {"frame_rate": 8.0, "guidance_scale": 1.0}),
        ("cogvideox", "CogVideoXPipeline", {"use_dynamic_cfg": False, "guidance_scale": 1.0}),
        ("hunyuan_video15", "HunyuanVideo15Pipeline", {"num_frames": 9}),
        ("ltx2", "LTX2Pipeline", {"stg_scale": 0.0, "modality_scale": 1.0, "frame_rate": 8.0}),
    ],
)
def test_pipelines_are_called_with_their_own_names_and_their_guidance_off(
    config, family, pipeline, extra
):
    call = _call(config, family, pipeline)
    assert extra.items() <= call.items()
    assert set(call) <= set(_parameters(pipeline))
    assert (call["num_frames"], call["num_inference_steps"]) == (9, 3)
    assert call["prompt"] == "a red circle moving left over a navy background"


@pytest.mark.parametrize(
    ("family", "pipeline", "off"),
    [
        ("sd15", "StableDiffusionPipeline", {"guidance_scale": 1.0}),
        ("sdxl", "StableDiffusionXLPipeline", {"guidance_scale": 1.0}),
        ("sd3", "StableDiffusion3Pipeline", {"skip_guidance_layers": None}),
        ("flux", "FluxPipeline", {"true_cfg_scale": 1.0}),
    ],
)
def test_image_pipelines_are_called_without_a_number_of_frames(config, family, pipeline, off):
    call = _call(config, family, pipeline)
    assert off.items() <= call.items()
    assert "num_frames" not in call
    assert set(call) <= set(_parameters(pipeline))


def test_svd_is_called_with_an_image_and_a_whole_rate_and_without_a_prompt(config, tmp_path):
    picture = _picture(tmp_path / "kite.png", 12, 8)
    prompts = f"prompts=[{{text: a kite, image: {picture}}}]"
    call = _call(config, "svd", "StableVideoDiffusionPipeline", prompts)
    assert "prompt" not in call
    assert type(call["fps"]) is int
    assert (call["fps"], call["min_guidance_scale"], call["max_guidance_scale"]) == (8, 1.0, 1.0)
    assert call["image"].size == (12, 8)
    with pytest.raises(ValueError, match=r"video.fps is 7.5, but svd .* Use 7 or 8"):
        _call(config, "svd", "StableVideoDiffusionPipeline", prompts, "video.fps=7.5")


@pytest.mark.parametrize("content", [b"P6\n4x 4\n255\n" + bytes(48), b"P6\n999999 999999\n255\n"])
def test_an_image_that_no_decoder_reads_is_named(tmp_path, content):
    (tmp_path / "kite.ppm").write_bytes(content)
    with pytest.raises(MediaError, match=r"the image .*kite\.ppm cannot be read: \w+"):
        load_image(str(tmp_path / "kite.ppm"), height=32, width=48)


def test_images_that_are_missing_superfluous_or_unreadable_say_what_to_do(config, tmp_path):
    none = f"prompts=[{{text: a cat, image: {tmp_path / 'none.png'}}}]"
    with pytest.raises(ValueError, match="starts from text alone. Delete `image`"):
        _call(config, "wan", "WanPipeline", none)
    with pytest.raises(ValueError, match="has no image, but this pipeline starts from one"):
        _call(config, "wan", "WanImageToVideoPipeline")
    with pytest.raises(MediaError, match=r"none\.png cannot be read"):
        _call(config, "wan", "WanImageToVideoPipeline", none)
    (tmp_path / "none.png").write_bytes(b"not a picture")
    with pytest.raises(MediaError, match=r"none\.png cannot be read"):
        _call(config, "wan", "WanImageToVideoPipeline", none)


def test_a_negative_prompt_for_a_model_without_texts_is_refused(config, tmp_path):
    picture = _picture(tmp_path / "kite.png", 12, 8)
    prompts = f"prompts=[{{text: a kite, image: {picture}, negative: blurry}}]"
    with pytest.raises(ValueError, match="conditioned on an image alone. Delete `negative`"):
        _call(config, "svd", "StableVideoDiffusionPipeline", prompts)


def test_a_pipeline_that_makes_a_video_in_several_loops_is_refused(config):
    with pytest.raises(ValueError, match="several loops, which is guided from Python alone"):
        _call(config, "framepack", "HunyuanVideoFramepackPipeline")


def test_image_of_the_ratio_of_the_video_keeps_every_pixel(tmp_path):
    path = _picture(tmp_path / "a.png", 96, 64)
    with Image.open(path) as image:
        assert load_image(str(path), height=32, width=48).tobytes() == image.tobytes()
    assert image_note(str(path), height=32, width=48) is None


@pytest.mark.parametrize(
    ("size", "box", "note"),
    [
        # 48 x 32 is 3 : 2
        ((120, 60), (15, 0, 105, 60), "25 % of its width is cut off"),
        ((60, 80), (0, 20, 60, 60), "50 % of its height is cut off"),
        ((21, 14), (0, 0, 21, 14), "it is blown up"),
    ],
)
def test_image_of_another_ratio_is_cut_from_its_centre_with_a_note(tmp_path, size, box, note):
    path = str(_picture(tmp_path / "a.png", *size))
    pixels = np.asarray(load_image(path, height=32, width=48))
    left, top, right, bottom = box
    assert pixels.shape == (bottom - top, right - left, 3)
    assert tuple(pixels[0, 0, :2]) == (left, top)
    assert tuple(pixels[-1, -1, :2]) == (right - 1, bottom - 1)
    assert note in image_note(path, height=32, width=48)


def test_note_on_a_cut_image_names_a_size_that_keeps_it(tmp_path):
    path = str(_picture(tmp_path / "a.png", 200, 200))
    note = image_note(path, height=480, width=832, multiple=16)
    assert "Write" not in note
    assert note.endswith("write video.width: 624 and video.height: 624.")
    assert "cut off" not in (image_note(path, height=624, width=624) or "")


def test_photographs_are_turned_upright(tmp_path):
    with Image.open(_picture(tmp_path / "a.png", 30, 20)) as image:
        exif = Image.Exif()
        exif[0x0112] = 6  # lies on its side
        image.save(tmp_path / "b.jpg", exif=exif)
    assert load_image(str(tmp_path / "b.jpg"), height=30, width=20).size == (20, 30)


@pytest.mark.parametrize(
    ("family", "override", "words"),
    [
        ("wan", "video.width=830", "video.width is 830, but wan makes multiples of 16. Use 816 o"),
        ("ltx", "video.height=48", "video.height is 48, but ltx makes multiples of 32. Use 32 or"),
        ("sd3", "video.height=8", "video.height is 8, but sd3 makes multiples of 16. Use 16."),
        ("flux", "video.num_frames=9", "num_frames is 9, but flux makes one image. Use 1."),
    ],
)
def test_sizes_that_a_family_cannot_make_name_those_that_it_can(config, family, override, words):
    shape = "video={num_frames: 1, height: 64, width: 64, fps: 8}"
    base = (CHECKPOINT, "guidance={scale: 3.0}", shape)
    with pytest.raises(ValueError, match=words):
        check_shape(config(*base, override).video, FAMILIES[family])
    check_shape(config(*base).video, FAMILIES[family])


def test_frames_of_another_number_or_size_than_asked_for_are_an_error(config):
    check_made(config().video, np.zeros((9, 8, 12, 3), np.float32), SimpleNamespace())
    with pytest.raises(ValueError, match=r"video.width is 12, but .* made 16. Use 16."):
        check_made(config().video, np.zeros((9, 8, 16, 3), np.float32), SimpleNamespace())


def test_videos_and_images_come_out_as_frames_of_every_sample():
    frames = np.random.default_rng(0).random((2, 5, 4, 6, 3))
    videos = frames_of(SimpleNamespace(frames=frames), FAMILIES["wan"])
    assert [video.shape for video in videos] == [(5, 4, 6, 3)] * 2
    assert videos[1].dtype == np.float32
    assert np.array_equal(videos[1], frames[1].astype(np.float32))
    images = frames_of(SimpleNamespace(images=frames[:, 0]), FAMILIES["sdxl"])
    assert [image.shape for image in images] == [(1, 4, 6, 3)] * 2
    assert np.array_equal(images[1][0], frames[1, 0].astype(np.float32))


def _processed(video, *, kind=Levels, **settings):
    """The frames that a pipeline with diffusers' video processor returns."""
    pipe = SimpleNamespace(video_processor=VideoProcessor(**settings))
    with converted_in_pieces(pipe, what="the video 'x'"):
        frames = pipe.video_processor.postprocess_video(video, output_type=kind("np"))
    assert "postprocess_video" not in vars(pipe.video_processor)
    return frames


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_frames", [1, PIECE, 2 * PIECE + 1])
def test_levels_of_pieces_are_those_of_the_whole_video(dtype, num_frames):
    generator = torch.Generator().manual_seed(0)
    video = (0.7 * torch.randn(2, 3, num_frames, 6, 10, generator=generator)).to(dtype)
    whole = VideoProcessor().postprocess_video(video, output_type="np")
    levels = _processed(video)
    assert levels.dtype == np.uint8
    assert np.array_equal(levels, np.rint(whole * np.float32(255)))
    assert len(np.unique(levels)) > 100
    (first, second) = frames_of(SimpleNamespace(frames=levels), FAMILIES["wan"])
    assert np.array_equal(first, levels[0])
    assert second.base is not None, "not a copy"


def test_a_video_processor_sees_a_few_frames_at_a_time():
    seen = []

    class Counting(VideoProcessor):
        def postprocess(self, image, *arguments, **options):
            seen.append(len(image))
            return super().postprocess(image, *arguments, **options)

    pipe = SimpleNamespace(video_processor=Counting())
    with converted_in_pieces(pipe, what="x"):
        video = torch.zeros(2, 3, 2 * PIECE + 1, 4, 6)
        pipe.video_processor.postprocess_video(video=video, output_type=Levels("np"))
    assert seen == [PIECE, PIECE, 1] * 2


def test_a_pipeline_that_asks_for_float_frames_on_its_way_gets_them():
    """As one with a safety checker does, which then makes levels of them itself."""
    video = torch.rand(2, 3, 5, 4, 6)
    want = VideoProcessor().postprocess_video(video, output_type="np")
    assert np.array_equal(_processed(video, kind=str), want)
    assert want.dtype == np.float32


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.5, "the video 'x': float frames reach from -0.25 to 1.5, they have to be in"),
        (float("nan"), "the video 'x': frames contain NaN or Inf."),
    ],
)
def test_range_of_pieces_is_that_of_the_whole_video(value, words):
    video = torch.zeros(2, 3, 2 * PIECE + 1, 4, 6)
    video[1, 0, 0, 0, 0], video[1, 1, -1, 2, 3] = -0.25, value
    with pytest.raises(ValueError, match=re.escape(words)):
        _processed(video, do_normalize=False)


def test_audio_comes_out_sample_by_sample_with_its_rate():
    waves = torch.rand(3, 2, 7)
    vocoder = SimpleNamespace(config=SimpleNamespace(output_sampling_rate=24000))
    pipe = SimpleNamespace(vocoder=vocoder)
    ((first, rate), *rest) = audio_of(SimpleNamespace(audio=waves), pipe)
    assert (first.shape, rate, len(rest)) == ((7, 2), 24000, 2)
    assert np.array_equal(first, waves[0].T.numpy())
    assert audio_of(SimpleNamespace(audio=waves), SimpleNamespace(vocoder=None)) == []
    assert audio_of(SimpleNamespace(frames=waves), pipe) == []
