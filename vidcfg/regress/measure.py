"""Sets of clips from a path or from memory; what has no values yet is measured."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.evaluate.inputs import Item, find_items
from vidcfg.regress.clips import (
    PREVIEW,
    ClipSet,
    MeasuredClip,
    as_set,
    folder_of,
    make_strip,
    read_baseline,
    read_finished,
)
from vidcfg.results import Key
from vidcfg.stored.read import ResultsError


def load_clips(path: str | Path, **measuring: Any) -> ClipSet:
    """The clips of a path: a baseline, a sweep store, an evaluated folder, or videos to measure
    (as `measure_folder`).

    Raises:
        ResultsError: the path does not exist, holds no clips, holds broken or doubled ones, or
            records that are not finite numbers.
    """
    path = Path(path)
    if not path.exists():
        raise ResultsError(f"{path} does not exist. Name a folder of videos, a store, a baseline.")
    if (path / "baseline.json").is_file():
        return read_baseline(path)
    if (path / "plan.json").is_file() or (path / "records.jsonl").is_file():
        return read_finished(path)
    return measure_folder(path, **measuring)


def measure_folder(
    path: str | Path,
    *,
    workers: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> ClipSet:
    """All videos of a folder, or one file. `workers` threads; 0: this one, None: one a core.

    A clip's cell is its folder below `path`; prompt and seed come from the record beside it, the
    prompt else from its file name.

    Raises:
        ResultsError: no videos, or one that cannot be read.
    """
    items = find_items([path])
    if not items:
        raise ResultsError(f"{path} holds no videos.")
    workers = min(8, os.cpu_count() or 1) if workers is None else workers
    clips: list[MeasuredClip] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for clip in pool.map(_measured, items) if workers else map(_measured, items):
            clips.append(clip)
            report(len(clips), len(items))
    return as_set(str(path), clips)


def measure_file(path: Path, key: Key, *, stride: int) -> MeasuredClip:
    """One video file under a given key.

    Raises:
        ResultsError: it cannot be read.
    """
    items = find_items([path])
    if len(items) != 1:
        raise ResultsError(f"{path} is a folder of {len(items)} videos. Name one file.")
    return replace(_measured(replace(items[0], stride=stride or items[0].stride)), key=key)


def _measured(item: Item) -> MeasuredClip:
    from vidcfg.evaluate.score import score_video
    from vidcfg.evaluate.settings import Settings

    records = {record.name: record for record in score_video(item, Settings()).records}
    for record in records.values():
        if record.status == "failed":
            raise ResultsError(f"{item.path} cannot be measured: {record.skipped_reason}")
    beside = item.path.with_suffix(".json")
    seed = -1 if item.seed is None else item.seed
    key = Key(folder_of(item.name), item.prompt or Path(item.name).stem, seed)
    return MeasuredClip(key, records, item.path, beside if beside.is_file() else None)


def measure_frames(
    frames_THWC: Any,
    key: Key,
    *,
    fps: float | int,
    stride: int = 4,
    what: str = "frames",
    has_preview: bool = False,
) -> MeasuredClip:
    """A clip in memory: [T, H, W, 3], uint8, or floats in [0, 1]. Tensors count as arrays.

    `has_preview`: small pictures of it are kept.

    Raises:
        ResultsError: another shape, NaN, or values outside the range.
    """
    from vidcfg.media.video import Video
    from vidcfg.metrics.meters import measure_video

    array = np.asarray(frames_THWC)
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise ResultsError(f"{what}: a clip is an array [T, H, W, 3], not {array.shape}.")
    if array.dtype != np.uint8:
        array = array.astype(np.float32)
    try:
        # A C-ordered copy makes sums independent of the layout that came in.
        channels_first = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        video = Video(channels_first, fps, lossless=True, source=what)
        records = measure_video(video, stride=stride)
    except ValueError as error:
        raise ResultsError(str(error)) from error
    by_name = {record.name: replace(record, subject="clip") for record in records}
    pictures = video.as_uint8().transpose(0, 2, 3, 1) if has_preview else None
    preview = None if pictures is None else make_strip(pictures, side=PREVIEW)
    return MeasuredClip(key, by_name, preview=preview)
