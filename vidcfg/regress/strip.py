"""Pictures of all frames of a clip in one file, small enough to keep with a baseline."""

import io
import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from vidcfg.media.video import MediaError
from vidcfg.regress.clips import ClipSet, MeasuredClip, Strip

SIDE = 192
"""Frames with a longer side above this are reduced to it."""

PREVIEW = 96
"""Likewise for the small pictures that every baseline keeps."""


# Several metrics may blame one clip, whose video is read once.
@lru_cache(maxsize=16)
def strip_of(clip: MeasuredClip, *, side: int = SIDE) -> Strip | None:
    """The pictures of a clip: kept ones, else from its video; None without either."""
    info = clip.info
    if clip.preview is not None:
        return clip.preview
    if clip.strip is not None and info is not None and info.num_frames:
        return read_strip(clip.strip, info.num_frames)
    if clip.video is None or not clip.video.exists():
        return None
    from vidcfg.media.read import read_video

    try:
        frames = read_video(clip.video).as_uint8().transpose(0, 2, 3, 1)
    except MediaError:
        return None
    # Measures know the size before pixels were repeated.
    enlarge = max(1, frames.shape[1] // info.height) if info and info.height else 1
    return make_strip(frames[:, ::enlarge, ::enlarge], side=side)


def make_strip(frames_THWC: np.ndarray, *, side: int = SIDE) -> Strip:
    """The strip of uint8 frames: exact up to `side` pixels, reduced and slightly lossy above."""
    from PIL import Image

    num, height, width = frames_THWC.shape[:3]
    factor = min(1.0, side / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    columns, rows = _grid(num)
    sheet = Image.new("RGB", (columns * size[0], rows * size[1]))
    for t, frame in enumerate(frames_THWC):
        picture = Image.fromarray(np.ascontiguousarray(frame)).convert("RGB")
        if factor < 1:
            picture = picture.resize(size, Image.Resampling.BOX)
        sheet.paste(picture, (t % columns * size[0], t // columns * size[1]))
    file = io.BytesIO()
    options = {"lossless": True} if factor == 1 else {"quality": 90 if side == SIDE else 70}
    sheet.save(file, format="webp", **options)
    return Strip(file.getvalue(), num, *size, columns)


def write_strips(clips: ClipSet, folder: Path, *, side: int | None = SIDE) -> ClipSet:
    """The clips with their pictures as files, those of an earlier set removed.

    `side` None keeps no pictures; clips without pictures and without a video have none either.
    """
    # The pictures of an earlier set may be those that are kept.
    strips = [side and strip_of(clip, side=side) for clip in clips.clips.values()]
    for old in folder.glob("[0-9]*.webp"):
        old.unlink()
    made = {}
    for index, ((key, clip), strip) in enumerate(zip(clips.clips.items(), strips)):
        path = folder / f"{index:04d}.webp" if strip else None
        if strip:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(strip.data)
        made[key] = replace(clip, strip=path)
    return replace(clips, clips=made)


def read_strip(path: Path, num_frames: int) -> Strip | None:
    """The strip of a file that `make_strip` wrote, None if it is damaged."""
    from PIL import Image

    columns, rows = _grid(num_frames)
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
    except OSError:
        return None
    if width % columns or height % rows:
        return None
    return Strip(data, num_frames, width // columns, height // rows, columns)


def _grid(num_frames: int) -> tuple[int, int]:
    columns = math.ceil(math.sqrt(num_frames))
    return columns, math.ceil(num_frames / columns)
