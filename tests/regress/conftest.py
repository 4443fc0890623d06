"""Real renders of the mini model, made once a session, and clips that are drawn in no time."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vidcfg.mini.shapes import Scene, caption, draw
from vidcfg.regress.clips import MeasuredClip, as_set
from vidcfg.regress.measure import measure_frames
from vidcfg.results import Key

SCENES = (
    Scene("circle", "red", "left", "navy"),
    Scene("square", "blue", "right", "gray"),
    Scene("triangle", "green", "up", "black"),
    Scene("square", "yellow", "down", "teal"),
    Scene("cross", "pink", "left", "black"),
    Scene("circle", "white", "right", "teal"),
    Scene("square", "red", "up", "gray"),
    Scene("circle", "green", "down", "navy"),
    Scene("circle", "yellow", "growing", "gray"),
    Scene("triangle", "pink", "right", "navy"),
    Scene("cross", "white", "up", "black"),
    Scene("circle", "blue", "shrinking", "teal"),
)


@pytest.fixture(scope="session")
def mini_gate():
    """The module scripts/mini_gate.py, which renders the mini model."""
    path = Path(__file__).parents[2] / "scripts" / "mini_gate.py"
    spec = importlib.util.spec_from_file_location("mini_gate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def pipe(mini_gate):
    return mini_gate.load()


@pytest.fixture(scope="session")
def long_clips(pipe):
    """Twelve drawn clips of 21 frames through the codec: 17 are judged, one more replaces a
    dropped one.
    """
    import torch

    drawn = np.stack([draw(scene, num_frames=21) for scene in SCENES])
    video = torch.from_numpy(drawn).permute(0, 4, 1, 2, 3) / 127.5 - 1
    with torch.no_grad():
        coded = (pipe.vae(video).sample.permute(0, 2, 3, 4, 1) + 1) * 127.5
    frames = coded.clamp(0, 255).round().byte().numpy()
    return {caption(scene): clip for scene, clip in zip(SCENES, frames, strict=True)}


@pytest.fixture(scope="session")
def measured():
    """`measured({prompt: frames}) -> ClipSet`, remembering clips that were measured before."""
    known = {}

    def measure(clips, source="clips"):
        made = []
        for prompt, frames in clips.items():
            content = (prompt, np.ascontiguousarray(frames).tobytes())
            if content not in known:
                known[content] = measure_frames(frames, Key("", prompt, 0), fps=8)
            made.append(known[content])
        return as_set(source, made)

    return measure


def pan(seed, *, num_frames=9, height=24, width=32):
    """A window that moves over a smooth texture, with a little flicker: uint8 frames."""
    import cv2

    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(height + 2 * num_frames, width + 2 * num_frames, 3))
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = 128 + 30 * texture / texture.std()
    windows = [texture[t : t + height, t * (seed % 2) :][:, :width] for t in range(num_frames)]
    levels = rng.normal(0, 1, (num_frames, 1, 1, 1))
    return np.clip(np.stack(windows) + levels, 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def panning():
    return pan


@pytest.fixture(scope="session")
def drawn(measured):
    """A measured set of twelve small clips, without a model."""
    return measured({f"pan {seed:02}": pan(seed) for seed in range(12)}, "drawn")


@pytest.fixture(scope="session")
def change():
    """`change(clips, metric=function of its record)`: a copy with some records replaced."""

    def changed(clips, only=None, **functions):
        made = []
        for index, (key, clip) in enumerate(clips.clips.items()):
            records = dict(clip.records)
            for name, function in functions.items():
                if only is None or index in only:
                    records[name] = function(records[name])
            made.append(MeasuredClip(key, records, clip.video, clip.record, clip.strip))
        return as_set("changed", made)

    return changed


@pytest.fixture(scope="session")
def times():
    """`times(1.05)`: a function that multiplies a record's value and trace."""

    def by(factor):
        def multiplied(record):
            trace = tuple(None if x is None else factor * x for x in record.trace)
            return replace(record, value=factor * record.value, trace=trace)

        return multiplied

    return by
