"""The files beside a video hold what was made."""

import io
import json
import wave
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import vidcfg.render.job as job
from vidcfg.render.files import as_png, as_wav


def test_png_keeps_every_pixel():
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(as_png(frame))) as image:
        assert np.array_equal(np.asarray(image), frame)


def test_wav_keeps_rate_channels_and_samples_to_half_a_level():
    samples = np.random.default_rng(0).uniform(-1, 1, (11, 2)).astype(np.float32)
    samples[3] = (1.5, -2.0)
    with wave.open(io.BytesIO(as_wav(samples, 24000))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (24000, 2, 11)
        levels = np.frombuffer(file.readframes(11), "<i2").reshape(11, 2)
    want = np.clip(samples, -1, 1)
    np.testing.assert_allclose(levels / 32767, want, atol=0.5 / 32767 + 1e-7)


def test_sound_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="holds NaN or Inf. Use model.dtype: float32"):
        as_wav(np.array([[np.nan, 0.0]]), 8000)


def test_sound_of_a_pipeline_lies_beside_its_video_and_in_the_record(
    render, tmp_path, monkeypatch
):
    sample = job.sample_units
    wave_SC = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]

    def with_sound(*arguments, **options):
        made = sample(*arguments, **options)
        (video,) = made.videos
        return replace(made, videos=(replace(video, audio=(wave_SC, 8000)),))

    monkeypatch.setattr(job, "sample_units", with_sound)
    assert render("--seed", "3") == 0
    (first, *rest) = sorted((tmp_path / "out").glob("*.wav"))
    assert len(rest) == 1
    assert first.read_bytes() == as_wav(wave_SC, 8000)
    record = json.loads(first.with_suffix(".json").read_text())
    assert record["files"]["audio"] == first.name
    assert render("--seed", "3", "--overwrite") == 0


def test_clip_of_one_frame_is_written_as_a_picture_too(render, tmp_path):
    frames = ("--set", "video.num_frames=1", "--set", "guidance.frames=uniform")
    assert render("--seed", "3", *frames) == 0
    (first, *rest) = sorted((tmp_path / "out").glob("*.image.png"))
    assert len(rest) == 1
    with Image.open(first) as image:
        assert image.size == (12, 8)
    record = json.loads((tmp_path / "out" / first.name.replace(".image.png", ".json")).read_text())
    assert record["files"]["image"] == first.name
