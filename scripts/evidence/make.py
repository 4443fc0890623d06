"""Sample the cells that are missing, many prompts at a time, and measure them beside it."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from evidence.cells import METRICS, Made, Work, missing, write_block

from vidcfg.mini.shapes import ATTRIBUTES, Scene, caption, sample_scene

UNSEEN = 2064
"""Students learn from the prompts from here on. Those before, and those of configs/evidence/
minimum.txt far behind, are of the evidence."""
CHUNK = 8
"""Clips that a process measures at a time."""


def draw_prompts(num: int, *, held_out: bool, start: int = 0) -> list[str]:
    """Whole captions of `draw_scenes`."""
    return [caption(scene) for scene in draw_scenes(num, held_out=held_out, start=start)]


def draw_scenes(num: int, *, held_out: bool, start: int = 0) -> list[Scene]:
    """Scenes whose captions differ, the same ones every time, from the one at `start`."""
    random = np.random.default_rng((2026, int(held_out)))
    found: dict[str, Scene] = {}
    for _ in range(1000 * (start + num)):
        if len(found) == start + num:
            break
        scene = sample_scene(random, held_out=held_out)
        found.setdefault(caption(scene), scene)
    return list(found.values())[start:]


def tasks_of(works: list[Work], out: Path, batch: int) -> list[tuple[Work, int, int]]:
    """(cell, first prompt, end) of what is missing; cells that are equal once."""
    made = []
    for work in {work.digest: work for work in works}.values():
        lacks = missing(out, work)
        while lacks:
            start = lacks[0]
            stop = start
            while stop in lacks and stop < start + batch:
                stop += 1
            made.append((work, start, stop))
            lacks = [i for i in lacks if i >= stop]
    return made


def make(
    tasks: list[tuple[Work, int, int]],
    out: Path,
    *,
    workers: int,
    bfloat16: bool,
    say: Callable[[str], None] = print,
) -> None:
    """Sample and measure; each task is kept as soon as it is measured."""
    from vidcfg.pipelines.load import load_pipeline

    if not tasks:
        return
    model = pipe = None
    begin, waiting, sampling = time.perf_counter(), deque(), 0.0
    for number, (work, start, stop) in enumerate(tasks, start=1):
        if work.config.model != model:
            model = work.config.model
            pipe = load_pipeline(model)
            if bfloat16:
                quicken(pipe)
        before = time.perf_counter()
        frames, evaluations = sample(pipe, work, start, stop, bfloat16=bfloat16)
        sampling += time.perf_counter() - before
        chunks = _measured(frames, work, start, workers)
        waiting.append((work, start, evaluations, chunks))
        # All processes have work, and not much more waits: frames take memory.
        while sum(len(chunks) for *_, chunks in waiting) > 4 * workers:
            _keep(out, *waiting.popleft())
        past = time.perf_counter() - begin
        left = past / number * (len(tasks) - number)
        say(
            f"{number} of {len(tasks)}: {work.sweep} {work.id} {start}-{stop}, {past:.0f} s "
            f"({sampling:.0f} s of sampling), {left:.0f} s left"
        )
    while waiting:
        _keep(out, *waiting.popleft())


def quicken(pipe: Any) -> None:
    """On a CPU: attention by plain matrix products and a compiled model, 1.7 times as fast."""
    import torch

    if pipe.device.type == "cpu":
        pipe.transformer.set_attention_backend("math")
        pipe.transformer.forward = torch.compile(pipe.transformer.forward, dynamic=False)


def sample(
    pipe: Any, work: Work, start: int, stop: int, *, bfloat16: bool
) -> tuple[np.ndarray, float]:
    """Videos uint8 [N, T, H, W, 3] of prompts start..stop, each from a seed of its own, and model
    evaluations of each."""
    import torch

    from vidcfg import guide
    from vidcfg.media.video import to_uint8
    from vidcfg.pipelines.schedulers import make_scheduler

    config, own = work.config, pipe.scheduler
    prompts, video = list(work.prompts[start:stop]), config.video
    seeds = range(work.first_seed + start, work.first_seed + stop)
    guidance = config.guidance.replace(share=False)
    device = torch.device(pipe.device).type
    try:
        pipe.scheduler = make_scheduler(pipe, config.sampling)
        mixed = torch.autocast(device, torch.bfloat16, enabled=bfloat16)
        with guide(pipe, guidance, fps=video.fps) as trace, mixed:
            frames = pipe(
                prompts,
                num_frames=video.num_frames,
                height=video.height,
                width=video.width,
                num_inference_steps=config.sampling.num_steps,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                guidance_scale=1.0,
            ).frames
    finally:
        pipe.scheduler = own
    count = sum(trace.evaluations.values()) / len(prompts)
    return np.stack([to_uint8(np.asarray(clip, np.float32)) for clip in frames]), count


def measure_clips(
    clips: np.ndarray, prompts: list[str], fps: float, *, scorer_alone: bool = False
) -> Made:
    """Metrics and features of uint8 clips [N, T, H, W, 3]; NaN for what is not measured."""
    from vidcfg.metrics.catalogue import METRICS as KNOWN
    from vidcfg.metrics.meters import ClipMeasures, measure

    net = scorer()
    frames = [np.ascontiguousarray(clip.transpose(0, 3, 1, 2)) for clip in clips]
    prepared = np.stack([net.prepare(clip) for clip in frames])
    free = [KNOWN[name] for name in METRICS if name in KNOWN and not scorer_alone]
    values = {name: np.full(len(clips), np.nan) for name in METRICS}
    right = {name: np.full(len(clips), np.nan) for name in ATTRIBUTES}
    for i, (clip, small, prompt) in enumerate(zip(frames, prepared, prompts)):
        meter = ClipMeasures(free, fps=fps)
        measure(clip, [meter])
        for record in [*net.judge(small, prompt)[1], *meter.finish()]:
            if record.name in values and record.value is not None:
                values[record.name][i] = record.value
            if record.name == "attribute_accuracy[mini]":
                for name in set(record.extra) & set(right):
                    right[name][i] = record.extra[name]
    return Made(values, right, features_of(prepared))


def features_of(prepared: np.ndarray) -> np.ndarray:
    """What sets are compared by, float32 [N, D]: what a clip shows, as the scorer reads it, then
    how it looks, as means over time of the scorer's first convolutions at 2 x 2 places.

    The first alone know what a caption could say and little else.
    """
    import torch

    net, looks = scorer().scorer, []
    with torch.inference_mode():
        for clip in torch.from_numpy(prepared):
            frames = net.frame(clip * 2 - 1)
            looks.append(torch.nn.functional.adaptive_avg_pool2d(frames, 2).mean(0).flatten())
    shown = scorer().features(prepared)
    return np.concatenate([shown, torch.stack(looks).numpy()], axis=1).astype(np.float32)


@cache
def scorer() -> Any:
    import torch

    from vidcfg.metrics.features.base import load_net

    torch.set_num_threads(1)
    return load_net("mini", paths=None, device="cpu")


@cache
def _pool(workers: int) -> ProcessPoolExecutor:
    # Processes are spawned: one that has used CUDA cannot be forked.
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin_worker)


def _begin_worker() -> None:
    """As many processes as cores share them best with one thread each."""
    import cv2

    from vidcfg.evaluate.run import end_with_parent

    end_with_parent()
    cv2.setNumThreads(1)


def _measured(frames: np.ndarray, work: Work, start: int, workers: int) -> list[Any]:
    task = partial(measure_clips, scorer_alone=work.scorer_alone)

    def pieces() -> Iterator[tuple[np.ndarray, list[str], float]]:
        for first in range(0, len(frames), CHUNK):
            clips = frames[first : first + CHUNK]
            texts = list(work.prompts[start + first : start + first + len(clips)])
            yield clips, texts, float(work.config.video.fps)

    if not workers:
        return [task(*piece) for piece in pieces()]
    return [_pool(workers).submit(task, *piece) for piece in pieces()]


def _keep(out: Path, work: Work, start: int, evaluations: float, chunks: list[Any]) -> None:
    made = [chunk.result() if isinstance(chunk, Future) else chunk for chunk in chunks]

    def joined(name: str) -> dict[str, np.ndarray]:
        found = [getattr(one, name) for one in made]
        return {key: np.concatenate([one[key] for one in found]) for key in found[0]}

    features = np.concatenate([one.features for one in made])
    whole = Made(joined("values"), joined("right"), features, evaluations)
    write_block(out, work, start, whole)
