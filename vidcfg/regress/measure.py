"""Clips measured on the spot, without weights: files of a folder, or arrays in memory."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.regress.clips import Clip, ClipSet, Key, RegressError, as_set


def measure_folder(
    path: str | Path, *, workers: int = 0, report: Callable[[int, int], None] = lambda a, b: None
) -> ClipSet:
    """All videos of a folder, or one file. `workers` threads (0: one a core, at most 8).

    A clip's cell is its folder below `path`; prompt and seed come from the record beside it, the
    prompt else from its file name.

    Raises:
        RegressError: no videos, or one that cannot be read.
    """
    from vidcfg.evaluate.inputs import find_items

    items = find_items([path])
    if not items:
        raise RegressError(f"{path} holds no videos.")
    workers = workers or min(8, os.cpu_count() or 1)
    clips: list[Clip] = []
    with ThreadPoolExecutor(workers) as pool:
        for done in pool.map(_scored, items):
            clips.append(done)
            report(len(clips), len(items))
    return as_set(str(path), clips)


def measure_file(path: Path, key: Key, *, stride: int | None = None) -> Clip:
    """One video file under a given key.

    Raises:
        RegressError: it cannot be read.
    """
    from vidcfg.evaluate.inputs import find_items

    items = find_items([path])
    if len(items) != 1:
        raise RegressError(f"{path} is a folder of {len(items)} videos. Name one file.")
    clip = _scored(replace(items[0], stride=stride or items[0].stride))
    return replace(clip, key=key)


def _scored(item) -> Clip:
    from vidcfg.evaluate.score import score_video
    from vidcfg.evaluate.settings import Settings

    records = score_video(item, Settings()).records
    broken = [r for r in records if r.status == "failed"]
    if broken:
        raise RegressError(f"{item.path} cannot be measured: {broken[0].skipped_reason}")
    folder = Path(item.name).parent.as_posix()
    beside = item.path.with_suffix(".json")
    key = Key(
        cell="" if folder == "." or item.name == str(item.path) else folder,
        prompt=item.prompt or Path(item.name).stem,
        seed=-1 if item.seed is None else item.seed,
    )
    by_name = {record.name: record for record in records}
    return Clip(key, by_name, item.path, beside if beside.is_file() else None)


def measure_frames(
    frames_THWC: Any, key: Key, *, fps: float | int, stride: int = 4, what: str = "frames"
) -> Clip:
    """A clip in memory: [T, H, W, 3], uint8, or floats in [0, 1]. Tensors count as arrays.

    Raises:
        RegressError: another shape, NaN, or values outside the range.
    """
    from vidcfg.media.video import Video
    from vidcfg.metrics.meters import measure_video

    array = np.asarray(frames_THWC)
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise RegressError(f"{what}: a clip is an array [T, H, W, 3], not {array.shape}.")
    if array.dtype != np.uint8:
        array = array.astype(np.float32)
    try:
        # A C-ordered copy makes sums independent of the layout that came in.
        channels_first = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        video = Video(channels_first, fps, lossless=True, source=what)
        records = measure_video(video, stride=stride)
    except ValueError as error:
        raise RegressError(str(error)) from error
    return Clip(key, {r.name: replace(r, subject="clip") for r in records})
