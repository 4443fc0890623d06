"""Captioned clips, and their latents on disk: drawn and encoded once, so that training spends its
time on the model.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from train_mini.config import DataConfig

from vidcfg.files import atomic_path, write_json
from vidcfg.mini.shapes import (
    ATTRIBUTES,
    PARTS,
    CaptionedClip,
    Scene,
    caption,
    draw,
    sample_scene,
)


def sample_clip(
    seed: tuple[int, ...], data: DataConfig, *, held_out: bool | None = False
) -> CaptionedClip:
    """The clip of a seed, as `vidcfg.mini.shapes.sample_clip`, with a loose caption."""
    scene, told = sample_scene_of(seed, data, held_out=held_out)
    size = {"num_frames": data.num_frames, "height": data.height, "width": data.width}
    return CaptionedClip(draw(scene, **size), told, scene)


def sample_scene_of(
    seed: tuple[int, ...], data: DataConfig, *, held_out: bool | None = False
) -> tuple[Scene, str]:
    """What the clip of a seed shows, not drawn, and its loose caption."""
    rng = np.random.default_rng(seed)
    faults = {"blurry": data.blurry, "shaky": data.shaky, "flickering": data.flickering}
    scene = sample_scene(rng, held_out=held_out, turns=data.turns, faults=faults)
    return scene, loose_caption(scene, data, rng)


def loose_caption(scene: Scene, data: DataConfig, rng: np.random.Generator) -> str:
    """A caption as captions of the web are: in part wrong, in part silent.

    Every value is replaced by another one of its attribute with probability `wrong`; never so
    that a caption names a pair held out of training, which would teach that such captions lie.
    With probability `partial` the caption leaves out every part with a chance of one half (at
    least one stays). Shake and flicker are told with probability `told`, a blur always.
    """
    while True:
        told = replace(scene, **{n: mistaken(scene, n, data.wrong, rng) for n in _DRAWN})
        if scene.is_held_out or not told.is_held_out:
            break
    without = {name for name in PARTS if rng.random() < 0.5}
    kept = PARTS[rng.integers(len(ATTRIBUTES))]
    without = without - {kept} if rng.random() < data.partial else set()
    without |= {name for name in ("shaky", "flickering") if rng.random() >= data.told}
    return caption(told, without)


_DRAWN = (*ATTRIBUTES, "then_colour", "then_motion")


def mistaken(scene: Scene, name: str, wrong: float, rng: np.random.Generator) -> str | None:
    """The value of an attribute, or with probability `wrong` another one of its values."""
    value, values = getattr(scene, name), ATTRIBUTES[name.removeprefix("then_")]
    others = [other for other in values if other != value]
    other, is_wrong = others[rng.integers(len(others))], rng.random() < wrong
    return other if is_wrong and value is not None else value


PIECE = 500
Drawn = tuple[np.ndarray, list[str], list[Scene]]
"""Frames uint8 [N, T, H, W, 3], captions, and what was drawn."""


def draw_pieces(
    data: DataConfig, start: int, stop: int, held_out: bool | None = False
) -> Iterator[Drawn]:
    """Clips `start` to `stop` of a data set in pieces, drawn by a process on every core."""
    pieces = [(data, i, min(i + PIECE, stop), held_out) for i in range(start, stop, PIECE)]
    if len(pieces) == 1:
        yield _draw_piece(pieces[0])
        return
    workers = min(len(pieces), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_draw_piece, pieces)


def draw_clips(data: DataConfig, start: int, stop: int, held_out: bool | None = False) -> Drawn:
    """`draw_pieces` as one piece."""
    drawn = zip(*draw_pieces(data, start, stop, held_out), strict=True)
    frames, captions, scenes = drawn
    return np.concatenate(frames), [*chain(*captions)], [*chain(*scenes)]


def _draw_piece(piece: tuple[DataConfig, int, int, bool | None]) -> Drawn:
    data, start, stop, held_out = piece
    clips = [sample_clip((data.seed, i), data, held_out=held_out) for i in range(start, stop)]
    captions, scenes = [c.caption for c in clips], [c.scene for c in clips]
    return np.stack([c.frames for c in clips]), captions, scenes


def to_pixels(frames: np.ndarray, device: str = "cpu") -> Tensor:
    """uint8 [N, T, H, W, 3] -> float32 [N, 3, T, H, W] in -1..1."""
    return torch.from_numpy(frames).to(device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def build(folder: Path, data: DataConfig, vae, tokenize, *, log=print) -> None:
    """Write `latents.npy` (float16) and `tokens.npy` (int16, captions) unless they fit this data
    set already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = {"data": data.model_dump(), "encoder": _fingerprint(vae)}
    done = folder / "cache.json"
    if done.is_file() and json.loads(done.read_text()) == key:
        return
    latents, tokens = [], []
    for frames, captions, _ in draw_pieces(data, 0, data.num_clips):
        latents.append(vae.encode(to_pixels(frames, vae.device)).latents.half().cpu().numpy())
        tokens.append(tokenize(captions)[0].numpy().astype(np.int16))
        if len(latents) % 20 == 0:
            log(f"cache: {len(latents) * PIECE} of {data.num_clips} clips")
    for name, rows in (("latents", latents), ("tokens", tokens)):
        with atomic_path(folder / f"{name}.npy", overwrite=True) as part, part.open("wb") as file:
            np.save(file, np.concatenate(rows))
    write_json(done, key)


class LatentBatches:
    """Shuffled batches; batch `step` is a function of (seed, step), so a resumed run sees the
    same ones. All latents are kept on `device`.
    """

    def __init__(self, folder: Path, *, batch_size: int, seed: int, device: str = "cpu"):
        self.latents, self.tokens = (
            torch.from_numpy(np.load(folder / f"{name}.npy")).to(device)
            for name in ("latents", "tokens")
        )
        self.batch_size, self.seed = min(batch_size, len(self.latents)), seed
        self.per_epoch = len(self.latents) // self.batch_size
        self._order: tuple[int, np.ndarray] | None = None

    def get(self, step: int) -> tuple[Tensor, Tensor]:
        """Latents float32 [B, C, F, h, w] and token numbers int64 [B, L] of a step."""
        epoch, place = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.latents))
            self._order = (epoch, order)
        rows = np.sort(self._order[1][place * self.batch_size : (place + 1) * self.batch_size])
        at = torch.from_numpy(rows).to(self.latents.device)
        return self.latents[at].float(), self.tokens[at].long()


def _fingerprint(vae) -> float:
    """One number that changes with the encoder's weights (the decoder does not matter for
    latents).
    """
    parts = (*vae.first.parameters(), *vae.group.parameters())
    return round(float(sum(p.double().abs().sum() for p in parts)), 3)
