"""Features of drawn clips, which generated ones are held against: of any scene, and of those that
a caption of the training data stands for."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from evidence.cells import digest_of, weights

from vidcfg.files import atomic_path
from vidcfg.mini.shapes import Scene, asked, draw, sample_clip, vary

EMBED = 128
"""The first columns of features: what a clip shows, as the scorer reads it; its look follows."""
REAL_CLIPS = 1024
CLIPS_OF_PROMPT = 256
WRONG = 0.3
"""How often a training caption names a value that is not so (`DataConfig.wrong`)."""


def real_features(out: Path) -> np.ndarray:
    """Of clips of trained pairs [M, D]; kept in `out`."""
    clips = (sample_clip((91, i)).frames for i in range(REAL_CLIPS))
    return _kept(out, f"real_{digest_of([weights(), REAL_CLIPS])}", clips)


def features_of_prompt(out: Path, prompt: str) -> np.ndarray:
    """Of clips that a training caption `prompt` may stand for [M, D]; kept in `out`."""
    random = np.random.default_rng((92, int(digest_of(prompt), 16)))
    clips = (draw(meant(prompt, random)) for _ in range(CLIPS_OF_PROMPT))
    return _kept(out, f"prompt_{digest_of([weights(), CLIPS_OF_PROMPT, prompt])}", clips)


def meant(prompt: str, random: np.random.Generator) -> Scene:
    """A scene as a training clip with this caption shows it: every value that it names is another
    one with probability WRONG, and the rest is drawn.

    All values are drawn as often and named wrongly as often, so what a name stands for is what it
    may be named. Scenes that no training clip shows are drawn again. The prompt names every
    attribute.
    """
    from train_mini.data import mistaken

    said = asked(prompt)
    told = Scene(
        **{name: first for name, (first, _) in said.items()},
        **{f"then_{n}": then for n in ("colour", "motion") if (then := said[n][1]) != said[n][0]},
    )
    names = [*said, "then_colour", "then_motion"]
    while True:
        scene = replace(told, **{name: mistaken(told, name, WRONG, random) for name in names})
        turns = [(scene.colour, scene.then_colour), (scene.motion, scene.then_motion)]
        if not scene.is_held_out and all(first != then for first, then in turns):
            return vary(scene, random)


def _kept(out: Path, name: str, clips: Iterable[np.ndarray]) -> np.ndarray:
    from evidence.make import features_of, scorer

    path = out / f"{name}.npy"
    if not path.exists():
        frames = (clip.transpose(0, 3, 1, 2) for clip in clips)
        rows = [features_of(scorer().prepare(clip)[None]) for clip in frames]
        with atomic_path(path, overwrite=True) as temporary, open(temporary, "wb") as file:
            np.save(file, np.concatenate(rows))
    return np.load(path)
