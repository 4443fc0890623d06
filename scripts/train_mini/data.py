"""Captioned clips, and their latents on disk: drawn and encoded once, so that training spends its
time on the model.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from train_mini.config import DataConfig

from vidcfg.files import write_json
from vidcfg.mini.shapes import MOTION_WORDS, CaptionedClip, Scene, caption, draw, sample_scene


def sample_clip(
    seed: tuple[int, ...], data: DataConfig, *, partial: float, held_out: bool | None = False
) -> CaptionedClip:
    """The clip of a seed, as `vidcfg.mini.shapes.sample_clip`, with some captions cut short.

    `partial` is the probability of such a caption.
    """
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, held_out=held_out, blurry=data.blurry)
    text = partial_caption(scene, rng) if rng.random() < partial else caption(scene)
    size = {"num_frames": data.num_frames, "height": data.height, "width": data.width}
    return CaptionedClip(draw(scene, **size), text, scene)


def partial_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption that leaves out a random choice of attributes (at least one stays)."""
    keep = rng.random(4) < 0.5
    keep[rng.integers(4)] = True
    colour, shape, motion, background = keep
    words = [scene.colour] if colour else []
    words += [scene.shape] if shape else ["shape"] if colour else []
    words = ["a", *words] if words else []
    words += [MOTION_WORDS[scene.motion]] if motion else []
    if background:
        words += ["over"] if words else []
        words += ["a", scene.background, "background"]
    text = " ".join(words)
    return f"blurry, {text}" if scene.is_blurry else text


def draw_range(data: DataConfig, start: int, stop: int) -> tuple[np.ndarray, list[str]]:
    """Clips `start` to `stop` of a data set, uint8 [N, T, H, W, 3], and their captions."""
    clips = [
        sample_clip((data.seed, index), data, partial=data.partial) for index in range(start, stop)
    ]
    return np.stack([c.frames for c in clips]), [c.caption for c in clips]


def to_pixels(frames: np.ndarray) -> Tensor:
    """uint8 [N, T, H, W, 3] -> float32 [N, 3, T, H, W] in -1..1."""
    return torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def build(folder: Path, data: DataConfig, vae, tokenize, *, workers: int = 2, log=print) -> None:
    """Write `latents.npy` (float16) and `tokens.npy` (int16, captions) unless they fit this data
    set already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = {"data": data.model_dump(), "encoder": _fingerprint(vae)}
    done = folder / "cache.json"
    if done.is_file() and json.loads(done.read_text()) == key:
        return
    chunks = [(i, min(i + 500, data.num_clips)) for i in range(0, data.num_clips, 500)]
    latents = tokens = None
    with get_context("spawn").Pool(workers) as pool:
        jobs = [pool.apply_async(draw_range, (data, *chunk)) for chunk in chunks]
        for (start, stop), job in zip(chunks, jobs, strict=True):
            frames, captions = job.get()
            z = vae.encode(to_pixels(frames)).latents.half().numpy()
            ids = tokenize(captions)[0].numpy()
            if latents is None:
                open_file = np.lib.format.open_memmap
                shape = (data.num_clips, *z.shape[1:])
                latents = open_file(folder / "latents.npy", "w+", np.float16, shape)
                tokens = open_file(
                    folder / "tokens.npy", "w+", np.int16, (data.num_clips, ids.shape[1])
                )
            latents[start:stop], tokens[start:stop] = z, ids
            if start % 5000 == 0:
                log(f"cache: {stop} of {data.num_clips} clips")
    latents.flush()
    tokens.flush()
    write_json(done, key)


class LatentBatches:
    """Shuffled batches; batch `step` is a function of (seed, step), so a resumed run sees the
    same ones.

    A background thread reads one batch ahead.
    """

    def __init__(self, folder: Path, *, batch_size: int, seed: int):
        self.latents = np.load(folder / "latents.npy", mmap_mode="r")
        self.tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self.batch_size, self.seed = min(batch_size, len(self.latents)), seed
        self.per_epoch = len(self.latents) // self.batch_size
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[int, object] | None = None
        self._order: tuple[int, np.ndarray] | None = None

    def get(self, step: int) -> tuple[Tensor, Tensor]:
        """Latents float32 [B, C, F, h, w] and token numbers int64 [B, L] of a step."""
        if self._next and self._next[0] == step:
            batch = self._next[1].result()
        else:
            batch = self._read(step)
        self._next = (step + 1, self._pool.submit(self._read, step + 1))
        return batch

    def _read(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.latents))
            self._order = (epoch, order)
        rows = np.sort(self._order[1][place * self.batch_size : (place + 1) * self.batch_size])
        return (
            torch.from_numpy(self.latents[rows].astype(np.float32)),
            torch.from_numpy(self.tokens[rows].astype(np.int64)),
        )


def _fingerprint(vae) -> float:
    """One number that changes with the encoder's weights (the decoder does not matter for
    latents).
    """
    parts = (*vae.first.parameters(), *vae.group.parameters())
    return round(float(sum(p.double().abs().sum() for p in parts)), 3)
