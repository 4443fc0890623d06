import json

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Results go to runs/evaluate of the folder where the command runs."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def scorer_folder(tmp_path_factory):
    """A small scorer with random weights: plumbing only, its numbers mean nothing."""
    import torch

    from vidcfg.mini.scorer import Scorer

    folder = tmp_path_factory.mktemp("scorer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Scorer(width=8, embed=12, text_width=16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """A folder as `vidcfg render` leaves it: five drawn clips with their records beside them."""
    from video_files import write_video

    from vidcfg.mini.shapes import sample_clip

    folder = tmp_path_factory.mktemp("rendered")
    for index in range(5):
        clip = sample_clip((3, index), num_frames=9, height=24, width=32)
        path = write_video(folder / f"clip_{index}.mkv", clip.frames, fps=8, codec="ffv1")
        record = {
            "prompt": {"text": clip.caption, "negative": ""},
            "seed": index,
            "video": {"enlarge": 1},
            "surface": {"num_frames": 9, "num_latent_frames": 3},
        }
        path.with_suffix(".json").write_text(json.dumps(record))
        # A contact sheet does not make the folder a video.
        path.with_suffix(".png").write_bytes(b"")
    return folder


@pytest.fixture
def noise_video(tmp_path):
    """Writes a small lossless file of noise and returns its path."""
    from video_files import write_video

    def make(name, *, num_frames=5, height=16, width=20, seed=0, codec="ffv1"):
        frames = np.random.default_rng(seed).integers(
            0, 256, (num_frames, height, width, 3), dtype=np.uint8
        )
        return write_video(tmp_path / name, frames, fps=8, codec=codec)

    return make
