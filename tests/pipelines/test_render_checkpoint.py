"""A checkpoint folder, rendered by the command: its frames are the stock pipeline's."""

import json

import numpy as np
import pytest
import torch
from tiny_text import with_prompts
from tiny_video import wan

from vidcfg.media.read import read_video
from vidcfg.render.__main__ import main

CONFIG = """\
schema: 1
name: checkpoint
model: {{kind: diffusers, checkpoint: "{folder}", device: cpu, dtype: float32}}
prompts: [{{text: a red circle moving left, negative: blurry}}]
seeds: 3
video: {{num_frames: 9, height: 16, width: 32, fps: 8}}
sampling: {{num_steps: 2, scheduler: pipeline}}
guidance: {{scale: 4.0}}
output: {{dir: "{out}", video: ffv1}}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    tiny = with_prompts(wan(num_steps=2))
    path = tmp_path_factory.mktemp("checkpoint")
    tiny.pipe.save_pretrained(path)
    return path


def test_video_of_a_rendered_checkpoint_holds_the_frames_of_the_stock_pipeline(
    checkpoint, tmp_path
):
    from diffusers import WanPipeline

    (tmp_path / "wan.yaml").write_text(CONFIG.format(folder=checkpoint, out=tmp_path / "out"))
    assert main([str(tmp_path / "wan.yaml")]) == 0
    pipe = WanPipeline.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    want = pipe(
        "a red circle moving left",
        negative_prompt="blurry",
        num_frames=9,
        height=16,
        width=32,
        num_inference_steps=2,
        guidance_scale=4.0,
        output_type="np",
        generator=torch.Generator().manual_seed(3),
    ).frames[0]
    torch.set_num_threads(threads)
    (path,) = (tmp_path / "out").glob("*.mkv")
    written = read_video(path).as_uint8().transpose(0, 2, 3, 1)
    assert np.array_equal(written, np.round(want * 255).astype(np.uint8))
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["trace"]["evaluations"] == {"cond": 2, "uncond": 2}
    assert str(checkpoint) in json.dumps(record["model"]) + json.dumps(record["config"])
